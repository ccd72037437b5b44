"""The package as others install it: a wheel, and folders of other people on the path."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from embedmill.pipeline.config import to_toml
from tests.support.worlds import PlantedWorld, config

ROOT = Path(__file__).parents[1]
SCRIPT = """
import sys
import embedmill, pandas
from embedmill import pipeline

assert embedmill.__file__.startswith(sys.argv[1]), embedmill.__file__
assert pipeline.__file__.startswith(sys.argv[1]), pipeline.__file__
frame = pandas.read_csv(sys.argv[2], sep="\\t", dtype={"user_id": str, "item_id": str})
run = embedmill.run(frame, user="user_id", item="item_id", time="time", quiet=True,
                    settings={"train.epochs": 2, "train.dim": 8})
item = run.items.ids[0]
print(len(run.neighbors(item, k=5)), len(run.recommend(run.users.ids[0], k=10)))
print(run.metrics["recall@10"], len(run.items.to_pandas()))
print(embedmill.open(run.folder).search(run.items.to_numpy()[:2], 3).rows.shape)
"""


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel unpacked, as pip does it, in a folder that nothing else is in."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*command, "--target", str(folder), str(wheel)], check=True, capture_output=True)
    return folder


def test_the_wheel_has_one_top_level_name(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name.split("/")[0] for name in archive.namelist()}
        files = set(archive.namelist())
    assert {name for name in names if not name.endswith(".dist-info")} == {"embedmill"}
    for package in ("pipeline", "jobs", "schemas"):
        ours = {p.relative_to(ROOT).as_posix() for p in (ROOT / package).rglob("*.py")}
        assert {f"embedmill/{name}" for name in ours} <= files
    assert "embedmill/demo.toml" in files


def test_three_lines_of_python_without_a_clone(installed: Path, tmp_path: Path) -> None:
    log = PlantedWorld().write(tmp_path / "log.tsv")
    answer = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(installed), str(log)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr
    near, table, shape = answer.stdout.splitlines()
    assert near == "5 10"
    assert 0 <= float(table.split()[0]) <= 1
    assert shape == "(2, 3)"


@pytest.mark.parametrize("words", [["--version"], ["run", "run.toml", "--quiet"]])
def test_folders_of_others_on_the_path(tmp_path: Path, words: list[str]) -> None:
    """Packages of the user, called as the folders of this repository, are never imported."""
    for name in ("pipeline", "jobs", "schemas"):
        package = tmp_path / "theirs" / name
        package.mkdir(parents=True)
        (package / "__init__.py").write_text(f"raise RuntimeError('the user has {name}')\n")
    log = PlantedWorld().write(tmp_path / "log.tsv")
    quick = {"launcher": "inline", "workers": 1, "epochs": 1, "dim": 4}
    tree = to_toml(config(tmp_path / "runs", log, train=quick))
    (tmp_path / "run.toml").write_text(tree, encoding="utf-8")
    path = os.pathsep.join([str(tmp_path / "theirs"), str(ROOT)])
    answer = subprocess.run(
        [sys.executable, "-m", "embedmill", *words],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr
    assert "Traceback" not in answer.stderr
