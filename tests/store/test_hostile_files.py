"""Changed files of every kind: a sentence and our exit code, whoever changed them, and no more.

Each case is a changed file and a command, by a seed: see `tests.support.hostile`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from embedmill.pipeline.config import to_toml
from tests.support.crash_scenarios import NIGHT, WORLD, line

PEAK = 1536  # MiB that a process may have resident, torch and engines included
# Of findings that were mended; each is run again by every test.
SEEDS: tuple[int, ...] = ()


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two nights with the config of the second, and their log."""
    folder = tmp_path_factory.mktemp("hostile")
    log, root = WORLD.write(folder / "log.tsv"), folder / "runs"
    for name in ("n0", "n1"):
        run = line(str(root), log, name, **NIGHT)
    (root / "n1.toml").write_text(to_toml(run.config).replace(str(root), "ROOT"))
    return root


def fuzz(runs: Path, seed: int, count: int) -> str:
    """Run cases in a process of their own; what it says."""
    variables = {
        "EMBEDMILL_CACHE": str(runs.parent / "cache"),
        "TMPDIR": str(runs.parent),
        "OMP_NUM_THREADS": "1",
        "TERM": "dumb",
    }
    words = [str(runs), str(runs.parent / "log.tsv"), str(seed), str(count)]
    answer = subprocess.run(
        [sys.executable, "-m", "tests.support.hostile", *words],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    last = [text for text in answer.stdout.splitlines() if text.startswith("case ")][-1:]
    assert answer.returncode == 0, (answer.returncode, last, answer.stderr[-3000:])
    return answer.stdout


def found(said: str) -> str:
    lines = [text.removeprefix("found ") for text in said.splitlines() if text.startswith("found ")]
    return "\n\n".join("\n".join(json.loads(text).values()) for text in lines)


def peak(said: str) -> int:
    return int(said.rpartition("peak ")[2])


def test_hostile_files(runs: Path) -> None:
    said = fuzz(runs, 1, 12)
    assert not found(said), found(said)
    assert peak(said) < PEAK
    for seed in SEEDS:
        said = fuzz(runs, seed, 1)
        assert not found(said), found(said)


@pytest.mark.exhaustive
@pytest.mark.timeout(3000)
def test_many_hostile_files(runs: Path) -> None:
    said = fuzz(runs, 1000, 2000)
    print(f"2000 cases, {peak(said)} MiB")
    assert not found(said), found(said)
    assert peak(said) < PEAK
