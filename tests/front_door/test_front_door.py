"""`import embedmill`: one function runs the line on paths and frames, one opens what it made."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import embedmill
from embedmill import front_door
from embedmill.pipeline.errors import ConfigError, InputError, StaleArtifactError
from tests.support.worlds import PlantedWorld

QUICK = {"train": {"epochs": 2, "dim": 8}, "run.partitions": 4}
NAMES = {"user": "who", "item": "what", "time": "at"}


@pytest.fixture(scope="module")
def frame(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """A planted log as a frame: ids as categories, times as timestamps."""
    path = PlantedWorld().write(tmp_path_factory.mktemp("log") / "log.tsv")
    found = pd.read_csv(path, sep="\t", dtype=str).iloc[:, :3]
    found.columns = pd.Index(["who", "what", "at"])
    found["at"] = pd.to_datetime(found["at"].astype(float), unit="s", utc=True)
    return found.astype({"who": "category"})


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def finished(frame: pd.DataFrame, root: Path) -> embedmill.Run:
    return embedmill.run(frame, **NAMES, name="plays", root=root, settings=QUICK, quiet=True)


def test_everything_public_is_listed() -> None:
    # Modules are there once something has imported them.
    public = {
        name
        for name, value in vars(embedmill).items()
        if not name.startswith("_") and not isinstance(value, ModuleType)
    }
    assert public == set(embedmill.__all__) - {"__version__"}
    assert embedmill.__all__ == sorted(embedmill.__all__, key=lambda n: (not n[0].isupper(), n))
    for name in embedmill.__all__:
        assert getattr(embedmill, name) is not None


def test_variables_stand_in_paths_name_and_settings() -> None:
    asked = {"events.date_to": "{ds}", "vars": {"ds": "2026-11-22"}}
    config = front_door._config("logs/date={ds}/*.tsv", ("u", "i", ""), "plays-{ds}", "r", asked)
    assert config.events.paths == ("logs/date=2026-11-22/*.tsv",)
    assert (config.run.name, config.events.date_to) == ("plays-2026-11-22", "2026-11-22")


def test_public_methods_say_what_they_do() -> None:
    tree = ast.parse(Path(front_door.__file__).read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            assert ast.get_docstring(node), node.name


def test_the_import_is_light() -> None:
    code = (
        "import sys, time; began = time.perf_counter(); import embedmill; "
        "taken = time.perf_counter() - began; "
        "print(*{'torch', 'ray', 'pyspark', 'pysail', 'faiss', 'pyarrow', 'numpy', 'pydantic'} "
        "& set(sys.modules))"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert answer.stdout.strip() == ""


def test_neighbours_and_recommendations(finished: embedmill.Run) -> None:
    item, user = finished.items.ids[0], finished.users.ids[0]
    near = finished.neighbors(item, k=3)
    assert len(near) == 3
    assert item not in {hit.item for hit in near}
    assert len(finished.recommend(user, k=2)) == 2
    with pytest.raises(InputError, match="no user"):
        finished.recommend("nobody at all")


def test_vectors_are_those_that_search_finds(finished: embedmill.Run, root: Path) -> None:
    items = finished.items
    vectors = items.to_numpy()
    found = embedmill.open(root / "plays").search(vectors[:5], 10)
    best = np.argsort(-(vectors[:5] @ vectors.T), axis=1)[:, 0]
    assert [ids[0] for ids in found.ids] == [items.ids[place] for place in best]
    assert len(items) == len(items.ids) == len(vectors)


def test_tables_say_the_same(finished: embedmill.Run) -> None:
    frame = finished.items.to_pandas()
    assert list(frame.columns) == ["id", "count", "vector"]
    assert np.array_equal(np.stack(frame["vector"].tolist()), finished.items.to_numpy())
    assert finished.items.to_polars().height == len(frame)
    assert frame["count"].sum() <= 10**6
    assert (frame["count"] > 0).all()


def test_metrics(finished: embedmill.Run) -> None:
    assert 0 <= float(finished.metrics["recall@10"]) <= 1


def test_the_published_run_is_opened_by_its_root(finished: embedmill.Run, root: Path) -> None:
    assert embedmill.open(root).folder == finished.folder
    assert repr(finished) == f"embedmill.open({finished.folder!r})"


@pytest.mark.parametrize(
    "convert",
    [
        pl.from_pandas,
        lambda frame: pl.from_pandas(frame).lazy(),
        lambda frame: pa.Table.from_pandas(frame, preserve_index=False),
        lambda frame: pa.Table.from_pandas(frame).to_reader(),
    ],
    ids=["polars", "polars-lazy", "arrow", "arrow-reader"],
)
def test_every_frame_gives_the_same_events(
    finished: embedmill.Run, frame: pd.DataFrame, tmp_path: Path, convert: Any
) -> None:
    given = convert(frame)
    other = embedmill.run(given, **NAMES, root=tmp_path, settings=QUICK, quiet=True)
    assert other.items.ids == finished.items.ids
    assert np.array_equal(other.items.to_numpy(), finished.items.to_numpy())


def test_the_same_call_finds_the_same_run(frame: pd.DataFrame, root: Path) -> None:
    one = embedmill.run(frame, **NAMES, root=root, settings=QUICK, quiet=True)
    two = embedmill.run(frame, **NAMES, root=root, settings=QUICK, quiet=True)
    assert one.folder == two.folder
    manifest = Path(one.folder, "train", "manifest.json")
    written = manifest.stat().st_mtime_ns
    embedmill.run(frame, **NAMES, root=root, settings=QUICK, quiet=True)
    assert manifest.stat().st_mtime_ns == written


def test_a_name_stands_for_one_run(finished: embedmill.Run, frame: pd.DataFrame) -> None:
    root = Path(finished.folder).parent
    with pytest.raises(StaleArtifactError, match=r"train\.dim was 8, is now 4"):
        embedmill.run(
            frame, **NAMES, name="plays", root=root, settings={**QUICK, "train.dim": 4}, quiet=True
        )


def test_without_times_events_are_held_out_at_random(frame: pd.DataFrame, tmp_path: Path) -> None:
    run = embedmill.run(
        frame[["who", "what"]], user="who", item="what", root=tmp_path, settings=QUICK, quiet=True
    )
    assert run.config.shards.split == "random"
    assert "recall@10" in run.metrics


def test_wrong_columns_and_keys(frame: pd.DataFrame, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="whom"):
        embedmill.run(frame, user="whom", item="what", root=tmp_path, quiet=True)
    with pytest.raises(ConfigError, match=r"train\.epoch: unknown key; did you mean 'epochs'"):
        embedmill.run(frame, **NAMES, root=tmp_path, settings={"train.epoch": 3}, quiet=True)
    with pytest.raises(InputError, match=r"pandas\.\S+Series, not a frame"):
        embedmill.run(frame["who"], **NAMES, root=tmp_path, quiet=True)
    with pytest.raises(InputError, match="no such file"):
        embedmill.run(tmp_path / "nothing.csv", **NAMES, root=tmp_path, quiet=True)
