"""Files of examples/schedules: what they run, and after which exit codes they try again."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from embedmill.jobs.run_record import BUG, INTERRUPTED, TERMINATED
from embedmill.pipeline import errors
from embedmill.schemas.stages import STAGES
from embedmill.stage_command import FAIL_CODES, RETRY_CODES
from embedmill.stage_command import STAGES as GROUPED
from tests.airflow.world import DAYS, write_world

ROOT = Path(__file__).parents[1]
CRON = ROOT / "examples/schedules/cron.sh"
KILLED = 137


def constant(path: str, name: str) -> object:
    """The value of a constant of a module that cannot be imported here."""
    for node in ast.parse((ROOT / path).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name:
            value = node.value
            return ast.literal_eval(value.args[0] if isinstance(value, ast.Call) else value)
    raise AssertionError(f"{path} has no {name}")


def test_retries_are_those_of_the_errors() -> None:
    classes = [getattr(errors, name) for name in errors.__all__ if name.endswith("Error")]
    again = {c.exit_code for c in classes if c.retry} | {INTERRUPTED, TERMINATED, KILLED}
    assert not {c.exit_code for c in classes if not c.retry} & again
    assert BUG not in again
    assert again == RETRY_CODES
    never = {c.exit_code for c in classes if not c.retry and c is not errors.EmbedmillError}
    assert never | {BUG} == FAIL_CODES
    assert constant("examples/schedules/prefect_flow.py", "RETRY_CODES") == again
    codes = "|".join(map(str, sorted(again)))
    assert f"{codes})" in CRON.read_text()
    assert f"in [{', '.join(map(str, sorted(again)))}]" in (CRON.parent / "argo.yaml").read_text()


def test_stages_are_those_of_the_line() -> None:
    assert tuple(STAGES) == GROUPED
    assert constant("examples/schedules/prefect_flow.py", "STAGES") == tuple(STAGES)


@pytest.mark.parametrize(
    ("codes", "tries"),
    [([0], 1), ([7, 8, 0], 3), ([7, 2, 0], 2), ([6, 0], 1), ([7, 7, 7, 7, 0], 4)],
)
def test_cron_tries_again_where_it_may_help(tmp_path: Path, codes: list[int], tries: int) -> None:
    fake, said = tmp_path / "embedmill", tmp_path / "said"
    for number, code in enumerate(codes, 1):
        (tmp_path / str(number)).write_text(str(code))
    fake.write_text(f'#!/bin/sh\necho "$@" >> {said}\nexit $(cat {tmp_path}/$(wc -l < {said}))\n')
    fake.chmod(0o755)
    environment = {"EMBEDMILL": str(fake), "EMBEDMILL_PAUSE": "0", "PATH": "/usr/bin:/bin"}
    done = subprocess.run([CRON, "plays.toml"], env=environment, check=False)
    lines = said.read_text().splitlines()
    day = (datetime.now(UTC) - timedelta(days=1)).date().isoformat()
    assert (done.returncode, len(lines)) == (codes[tries - 1], tries)
    assert set(lines) == {f"run plays.toml --var ds={day} --json"}


@pytest.mark.exhaustive
def test_cron_runs_two_nights(tmp_path: Path) -> None:
    config = write_world(tmp_path)
    environment = {**os.environ, "EMBEDMILL": str(Path(sys.prefix) / "bin/embedmill")}
    seen: list[set[str]] = []
    for day in (DAYS[0], DAYS[1], DAYS[0]):
        done = subprocess.run(
            [CRON, config, day], env=environment, capture_output=True, text=True, check=True
        )
        result = json.loads(done.stdout.splitlines()[-1])
        published = len(seen) < 2  # the first day again is older than the second
        assert (result["run"], result["published"]) == (f"plays-{day}", published)
        seen.append({stage["state"] for stage in result["stages"]})
    assert seen == [{"built"}, {"built"}, {"up to date"}]
    words = [CRON, config, "2026-01-01"]
    assert subprocess.run(words, env=environment, check=False).returncode == 3


def test_the_afternoon_was_with_these_files() -> None:
    page = (ROOT / "docs/guides/afternoon.md").read_text(encoding="utf-8")
    folder = ROOT / "examples/afternoon"
    assert (folder / "plays.toml").read_text() in page
    assert (folder / "plays_dag.py").read_text().replace("/AFTERNOON", "/tmp/afternoon") in page
