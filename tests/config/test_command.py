"""`embedmill config`: the resolved run, the schema, and notes on stderr."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path

from embedmill.pipeline.config import json_schema, load

TOML = """
[run]
name = "a"
[events]
paths = "a.tsv"
time = "t"
[train]
temperature = 0.2
"""


def config(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "embedmill", "config", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_schema_needs_no_file() -> None:
    answer = config("--schema")
    assert (answer.returncode, answer.stderr) == (0, "")
    assert json.loads(answer.stdout) == json_schema()


def test_the_resolved_run_and_a_note_for_each_moved_key(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_text(TOML, encoding="utf-8")
    answer = config(str(path), "--set", "train.negatives=7")
    assert answer.returncode == 0
    assert answer.stderr.splitlines() == [
        "embedmill: train.temperature is now train.softmax.temperature",
        "embedmill: train.negatives is now train.softmax.negatives",
    ]
    softmax = tomllib.loads(answer.stdout)["train"]["softmax"]
    assert (softmax["temperature"], softmax["negatives"]) == (0.2, 7)
    assert "# scores are divided by it\ntemperature = 0.2\n" in answer.stdout
    lines = answer.stdout.splitlines()
    keys = [at for at, line in enumerate(lines) if " = " in line and not line.startswith("#")]
    assert all(lines[at - 1].startswith("# ") for at in keys)
    again = tmp_path / "again.toml"
    again.write_text(answer.stdout, encoding="utf-8")
    assert load(again) == load(path, ["train.negatives=7"])


def test_a_key_that_is_not_read_ends_it_with_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_text(TOML, encoding="utf-8")
    answer = config(str(path), "--set", "train.objective=ccl")
    assert (answer.returncode, answer.stdout) == (2, "")
    assert answer.stderr == (
        f"embedmill: {path}: train.temperature: not read by objective 'ccl', only by softmax, "
        "bpr, item2vec, item2vec-softmax\n"
    )
    assert config().returncode == 2
