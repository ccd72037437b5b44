"""A `forget` that ends at any change of a file: the same command ends it, and readers go on.

Every change of files is a point: at each the change is lost, or done and reported as failed. Where
two points leave the same files, the command is given again once.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from embedmill.pipeline.forget import forget
from embedmill.pipeline.formats import ExportOptions, write
from embedmill.pipeline.formats.deltas import apply_deltas, write_delta
from embedmill.pipeline.log import Quiet
from embedmill.pipeline.store import lease
from embedmill.pipeline.store.artifact import Artifact, read_manifest
from embedmill.pipeline.store.run import Run, open_run
from embedmill.pipeline.store.storage import Storage
from embedmill.schemas.stages import STAGES
from tests.forget.conftest import CANARY, small_run
from tests.support.bucket import buckets_in_memory
from tests.support.crash_points import World
from tests.support.crash_roots import OUTCOMES, copied, kind_of, told_of, uncopied

SHARES = 4  # of the points of a sweep, so that each part of it takes minutes


@dataclass
class Start:
    """A root with two runs, one of them unfinished in its index; an export, and a delta."""

    root: str

    @property
    def is_local(self) -> bool:
        return kind_of(self.root) == "local"

    def build(self) -> Start:
        first = small_run(self.root, "n0")
        second = small_run(self.root, "n1", continues=f"{self.root}/n0")
        if self.is_local:
            write(second, ExportOptions("word2vec"), f"{self.root}/exports/w2v", Quiet())
        second.discard("index")
        second.storage.write("index/scratch/half", CANARY.encode())
        del first
        return self

    def copy(self) -> Start:
        return Start(copied(self.root))

    def remove(self) -> None:
        """Free what a copy takes."""
        if self.is_local:
            shutil.rmtree(self.root)
        else:
            Storage(self.root).clear()

    def forget(self) -> None:
        forget(self.root, {"users": [CANARY]})

    def contents(self) -> dict[str, str]:
        """Content of each finished stage, all of whose files are whole."""
        found = {}
        for name in ("n0", "n1"):
            run = open_run(f"{self.root}/{name}")
            for stage in STAGES:
                artifact = run.find(stage)
                if artifact is not None:
                    assert list(artifact.verify()) == []
                    found[f"{name}/{stage}"] = artifact.manifest.content
        return found

    def state(self) -> str:
        """A hash of all files but leases, which say when, and by whom."""
        own = self.root.encode()
        found = sorted(
            (path, hashlib.sha256(data.replace(own, b"")).hexdigest())
            for path, data in self.bytes_of()
            if "/lease/" not in f"/{path}"
        )
        return hashlib.sha256(repr(found).encode()).hexdigest()

    def bytes_of(self) -> Iterator[tuple[str, bytes]]:
        storage = Storage(self.root)
        for path in storage.files():
            yield path, storage.read(path)


STORES = [pytest.param(kind, marks=pytest.mark.exhaustive) for kind in ("memory", "s3")]


@pytest.fixture(params=["local", "objects", *STORES])
def start(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Start]:
    with buckets_in_memory():
        yield Start(uncopied(request.param, tmp_path)).build()


def sweep(
    start: Start, monkeypatch: pytest.MonkeyPatch, stride: int, step: int = 1, share: int = 0
) -> int:
    """Stop at every `stride`-th change, in each way; returns the number of points.

    Args:
        start: a root, which is copied.
        monkeypatch: lets the process that stopped be gone.
        stride: of the changes.
        step: every so many of these points are tried.
        share: number of the first one that is tried.
    """
    before, calm, whole = start.contents(), World(), start.copy()
    with told_of(whole.root, calm):
        whole.forget()
    undisturbed = whole.contents()
    assert undisturbed.keys() == before.keys()
    assert not [path for path, data in whole.bytes_of() if CANARY.encode() in data]
    # What is not on the disk yet is not lost here: files are, as a world says.
    monkeypatch.setattr(os, "fsync", lambda _: None)
    # The process that stopped is this one, and would be found to run.
    monkeypatch.setattr(lease, "is_running", lambda *_: False)
    points = list(itertools.product(range(0, len(calm.log), stride), OUTCOMES[kind_of(start.root)]))
    points = points[share::step]
    ended = set[str]()
    for stop, outcome in points:
        root = start.copy()
        world = World(stop, outcome)
        with (
            told_of(root.root, world),
            suppress(Exception),
        ):  # what it says does not matter: it is gone
            root.forget()
        world.end()
        assert world.stopped or outcome in ("done", "late"), (stop, outcome)
        at = (world.log[stop], outcome)
        state = root.state()
        if state in ended:
            root.remove()
            continue
        ended.add(state)
        for stage, content in root.contents().items():  # what a reader sees is whole
            assert content in (before[stage], undisturbed[stage]), at
        root.forget()
        assert root.contents() == undisturbed, at
        assert not [path for path, data in root.bytes_of() if CANARY.encode() in data], at
        assert not Storage(root.root).exists("_forget/pending.json"), at
        root.remove()
    print(f"{len(points)} points, {len(ended)} states")
    return len(points)


def test_crash_points(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    assert sweep(start, monkeypatch, 43) >= 4


@pytest.mark.exhaustive
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("share", range(SHARES))
def test_every_crash_point(start: Start, share: int, monkeypatch: pytest.MonkeyPatch) -> None:
    assert sweep(start, monkeypatch, 1, SHARES, share) >= 50


def test_deltas_stay_a_chain(tmp_path: Path) -> None:
    root = str(tmp_path / "runs")
    base, run = small_run(root, "n0"), small_run(root, "n1")
    same: list[Run] = [base, run]
    folder = f"{root}/deltas/1"
    with suppress(Exception):  # two trainings have two spaces
        write_delta(run, base, [], folder)
    if not Storage(folder).exists("manifest.json"):
        write_delta(base, base, [], folder)
        same = [base, base]
    forget(root, {"users": [CANARY]})
    apply_deltas(same[0], [folder], str(tmp_path / "whole"))
    storage = same[1].storage.at("export")
    manifest = read_manifest(storage)
    assert manifest is not None
    export = Artifact.of("export", storage, manifest)
    path = "users/part-00000.parquet"
    assert (tmp_path / "whole" / path).read_bytes() == export.read(path)
