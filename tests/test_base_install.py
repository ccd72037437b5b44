"""Readers and data stages run without torch, Ray and Apache Spark; others say what to install."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from embedmill.pipeline.config import to_toml
from embedmill.pipeline.errors import MissingPackageError
from embedmill.pipeline.extras import naming_extras
from tests.support.runs import clusters, finished
from tests.support.worlds import PlantedWorld, config

ROOT = Path(__file__).parents[1]


def test_base_commands_import_no_extra(tmp_path: Path) -> None:
    log = PlantedWorld().write(tmp_path / "log.tsv")
    toml = tmp_path / "run.toml"
    toml.write_text(to_toml(config(tmp_path / "new", log)), encoding="utf-8")
    run = finished(clusters(), tmp_path / "runs").storage.root.removeprefix("file://")
    users = tmp_path / "users.txt"
    users.write_text("u1\nu3\n", encoding="utf-8")
    some = str(tmp_path / "some.parquet")
    works = [
        ["--help"],
        ["config", str(toml)],
        ["run", str(toml), "--to", "shards", "--quiet"],
        ["neighbors", run, "--item", "i4"],
        ["recommend", run, "--user", "u3"],
        ["recommend", run, "--users", str(users), "--output", some],
        ["verify", run],
        ["status", run],
        ["export", run, "--format", "npy", "--dtype", "float16", "--output", str(tmp_path / "npy")],
    ]
    fails = [
        ["run", str(toml), "--to", "train", "--quiet"],
        ["demo", "--to", "nowhere"],
        ["fold", run, "--events", some, "--output", str(tmp_path / "folded.parquet")],
        ["run", str(toml), "--from", "events", "--to", "events", "--engine", "spark", "--rebuild"],
    ]
    (tmp_path / "commands.json").write_text(json.dumps(works + fails), encoding="utf-8")
    answer = subprocess.run(
        [sys.executable, "-m", "tests.support.base_install", str(tmp_path / "commands.json")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    codes = [line.split(":")[0] for line in answer.stderr.splitlines() if line.startswith("exit ")]
    assert codes == ["exit 0"] * len(works) + ["exit 2"] * len(fails), answer.stderr
    assert "stage 'train': torch is not installed. pip install 'embedmill[train]'" in answer.stderr
    assert "no stage 'nowhere'" in answer.stderr
    assert "fold-in: torch is not installed. pip install 'embedmill[train]'" in answer.stderr
    assert "pip install 'embedmill[spark]'" in answer.stderr


def test_a_package_of_no_extra_is_a_bug() -> None:
    with pytest.raises(ModuleNotFoundError), naming_extras("stage 'train'"):
        raise ModuleNotFoundError("No module named 'numpy'", name="numpy")
    with pytest.raises(MissingPackageError, match="engine = 'spark'") as raised, naming_extras("x"):
        raise ModuleNotFoundError("No module named 'pysail'", name="pysail.spark")
    assert not raised.value.retry
