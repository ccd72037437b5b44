"""Nights that are not like others: each ends well, or with one clear sentence and its exit code."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedmill.jobs.all import run_line
from embedmill.pipeline.config import parse
from embedmill.pipeline.config.toml import emit
from embedmill.pipeline.evaluate.drift import measure_drift
from embedmill.pipeline.store import artifact_writer, publication
from embedmill.pipeline.store.publication import publish
from embedmill.pipeline.store.retention import plan_removal
from embedmill.pipeline.store.run import Run, published
from embedmill.pipeline.terminal import Terminal
from embedmill.pipeline.views.vectors import spec_of
from embedmill.pipeline.views.vocabulary import Vocabulary
from embedmill.schemas.stages import STAGES
from tests.support.commands import Cli
from tests.support.worlds import PlantedWorld, config_tree, laid

Night = Callable[..., Run]
WORLD = PlantedWorld(users=40, items=24)
LAST = "export"
BUILT = {name: STAGES[name] for name in ("events", "vocab", "shards", "train", LAST)}


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root with a finished night, published; copied before anything changes it."""
    root = tmp_path_factory.mktemp("nights") / "runs"
    run = Run(tree_of(root, "monday", WORLD.events()))
    run_line(run, last=LAST, terminal=Terminal(quiet=True))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(publication, "STAGES", BUILT)
        publish(run)
    return root


def tree_of(root: Path, name: str, events: Any, **sections: Any) -> Any:
    log = root.parent / f"{root.name}-{name}.tsv"
    lines = ["user_id\titem_id\ttime\trating", *("\t".join(map(str, e)) for e in events)]
    log.write_text("\n".join(lines) + "\n", encoding="utf-8")
    tree = laid(
        config_tree(root, log, name), vocab={"previous": "published"},
        train={"objective": "spectral", "start": "published"}, **sections,
    )  # fmt: skip
    return parse(tree)


@pytest.fixture
def night(first: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Night:
    """Runs a night after the first one, up to its vectors."""
    monkeypatch.setattr(publication, "STAGES", BUILT)
    root = tmp_path / "runs"
    shutil.copytree(first, root)

    def run_night(name: str, events: Any, **sections: Any) -> Run:
        run = Run(tree_of(root, name, events, **sections))
        run_line(run, last=LAST, terminal=Terminal(quiet=True))
        return run

    return run_night


def monday(tmp_path: Path) -> Run:
    return Run(tree_of(tmp_path / "runs", "monday", WORLD.events()))


def rows(run: Run, side: str) -> list[str | None]:
    vocab = Vocabulary.of(run.artifact("vocab"), side)
    return list(vocab.ids(np.arange(vocab.count)))


def test_no_id_is_new_and_no_event(night: Night, tmp_path: Path) -> None:
    run, before = night("tuesday", WORLD.events()), monday(tmp_path)
    for side in ("users", "items"):
        assert rows(run, side) == rows(before, side)
    drift = measure_drift(run.artifact("export"), before.artifact("export"), 1)
    assert (drift.one_space, drift.moved) == (True, 0.0)
    assert float(drift.jaccard or 0) > 0.9


def test_every_id_is_new(night: Night, tmp_path: Path) -> None:
    events = [(f"x{user}", f"x{item}", time, weight) for user, item, time, weight in WORLD.events()]
    run, before = night("tuesday", events), monday(tmp_path)
    for side in ("users", "items"):
        known = rows(before, side)
        assert rows(run, side)[: len(known)] == known
    space = spec_of(run.artifact("export")).space
    assert space is not None
    assert (space.aligned, space.reason) == (False, "no id is in both runs")
    vectors = run.artifact("export").read_tables("items")["vector"].to_pylist()
    assert not np.any(vectors[: len(rows(before, "items"))])
    assert np.all(np.linalg.norm(vectors[len(rows(before, "items")) :], axis=1) > 0)


def test_the_last_nights_vectors_are_gone(night: Night, tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "runs" / "monday" / "export")
    run = night("tuesday", WORLD.events())
    space = spec_of(run.artifact("export")).space
    assert space is not None
    assert not space.aligned
    assert "monday has no vectors to align to: stage 'export' has not finished" in space.reason


@pytest.mark.parametrize(
    ("change", "said", "code"),
    [
        ("no events", "the log has no rows", 3),
        ("unfinished", "stage 'train' has not finished", 2),
        ("damaged", "its bytes are not those that were written", 2),
        ("newer", "is in format 9, this program reads format 1", 2),
        ("nowhere", "no run here", 2),
    ],
)
def test_what_a_night_cannot_use_is_said_in_one_sentence(
    change: str, said: str, code: int, first: Path, tmp_path: Path, embedmill: Cli
) -> None:
    root = tmp_path / "runs"
    shutil.copytree(first, root)
    manifest = root / "monday" / "train" / "manifest.json"
    if change == "unfinished":
        manifest.unlink()
    elif change == "damaged":
        manifest.write_bytes(manifest.read_bytes().replace(b'"seconds"', b'"secs"'))
    elif change == "newer":
        manifest.write_bytes(manifest.read_bytes().replace(b'"format": 1', b'"format": 9'))
    events = [] if change == "no events" else WORLD.events()
    config = tree_of(root, "tuesday", events, run={"name": "tuesday", "root": str(root)})
    start = "elsewhere" if change == "nowhere" else "monday"
    toml = tmp_path / "tuesday.toml"
    toml.write_text(emit(json.loads(config.model_dump_json(exclude_none=True))))
    got, _, err = embedmill(["run", str(toml), "--set", f"train.start={start}"])
    assert (got, said in err) == (code, True), err
    assert "Traceback" not in err
    pointer = published(str(root))
    assert pointer is not None
    assert pointer.run == "monday"


class _Yesterday(datetime):
    @classmethod
    def now(cls, tz: Any = None) -> datetime:  # type: ignore[override]
        return datetime(2020, 1, 1, tzinfo=tz or UTC)


def test_a_clock_that_went_back(
    night: Night, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A night that seems older than the one it continues is published, and nothing is removed."""
    for module in (artifact_writer, publication):
        monkeypatch.setattr(module, "datetime", _Yesterday)
    run = night("tuesday", WORLD.events())
    assert run.artifact("export").manifest.created < "2021"
    assert publish(run).refused == ""
    pointer = published(str(tmp_path / "runs"))
    assert pointer is not None
    assert pointer.run == "tuesday"
    plan = plan_removal(str(tmp_path / "runs"), keep=1, rollbacks=0)
    assert {one.name for one in plan if not one.kept} == set()


def test_two_nights_at_once_continue_one_night(night: Night, tmp_path: Path) -> None:
    """Both go on from the same rows; the one that publishes last is published."""
    added = [*WORLD.events(), *(("new", f"i{n}", 1_600_000_000 + n, 5.0) for n in range(4))]
    runs = [night("tuesday", added), night("also", WORLD.events())]
    assert [publish(one).refused for one in runs] == ["", ""]
    base = [rows(one, "users")[:40] for one in runs]
    assert base[0] == base[1]
    assert "new" in rows(runs[0], "users")
    assert "new" not in rows(runs[1], "users")
    wednesday = night("wednesday", added)
    assert rows(wednesday, "users")[:40] == base[0]
    assert spec_of(wednesday.artifact("export")).space.id == (  # type: ignore[union-attr]
        spec_of(runs[0].artifact("export")).space.id  # type: ignore[union-attr]
    )
