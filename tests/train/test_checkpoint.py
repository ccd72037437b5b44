"""Checkpoints are written while training goes on, and count when all of them is written."""

from __future__ import annotations

import hashlib
import json
import threading
from pathlib import Path
from typing import Any

import pytest

from embedmill.pipeline import train
from embedmill.pipeline.errors import MachineError, StaleArtifactError
from embedmill.pipeline.log import Quiet
from embedmill.pipeline.store.run import Run
from embedmill.pipeline.store.storage import HashingFile, Storage
from tests.support.ranks import run_ranks
from tests.support.runs import planted

# Nine steps of an epoch; the checkpoint of step 4 is the first.
SETTINGS = {"epochs": 2, "batch_size": 40, "checkpoint_steps": 4, "log_steps": 1}
FIRST = "epoch-00000-0000004"
POINTER = "train/checkpoints/latest.json"


class StoppedHereError(Exception):
    pass


class Held(Quiet):
    """Lets the parts of the first checkpoint be written from the n-th step on."""

    def __init__(self, run: Run, release: int, stop: int = 0) -> None:
        self.run = run
        self.release = release
        self.stop = stop
        self.step = 0
        self.gate = threading.Event()
        self.waited: list[str] = []
        self.sealed: dict[int, str] = {}  # the latest slot, as each step ends

    def write(self, storage: Storage, path: str, data: bytes) -> HashingFile:
        if f"{FIRST}/part-" in path:
            self.waited.append(path)
            if not self.gate.wait(60):
                raise RuntimeError("training did not go on")
        return WRITE(storage, path, data)

    def update(self, done: int, total: int | None, unit: str, **facts: float) -> None:
        self.step += 1
        found = self.run.storage.exists(POINTER)
        self.sealed[self.step] = latest(self.run) if found else ""
        if self.step == self.release:
            self.gate.set()
        if self.step == self.stop:
            self.gate.set()
            raise StoppedHereError


WRITE = Storage.write


def latest(run: Run) -> str:
    slot: str = json.loads(run.storage.read(POINTER))["slot"]
    return slot


def held(monkeypatch: pytest.MonkeyPatch, run: Run, release: int, stop: int = 0) -> Held:
    progress = Held(run, release, stop)
    monkeypatch.setattr(Storage, "write", lambda *args: progress.write(*args))
    return progress


def content(run: Run) -> str:
    return run.artifact("train").manifest.content


def calm(folder: Path) -> str:
    run = planted(folder, train=SETTINGS)
    train.build(run, run.writer("train"), Quiet())
    return content(run)


def test_training_goes_on_while_a_checkpoint_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = calm(tmp_path / "calm")
    run = planted(tmp_path / "held", train=SETTINGS)
    progress = held(monkeypatch, run, release=7)
    train.build(run, run.writer("train"), progress)
    # Steps 5 to 7 were taken while the first part waited; then step 8 had to wait for it.
    assert [progress.sealed[step] for step in (5, 6, 7)] == ["", "", ""]
    assert progress.sealed[9] == FIRST
    assert len(progress.waited) == 4
    assert content(run) == expected


def test_a_checkpoint_that_is_not_whole_does_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = planted(tmp_path / "held", train=SETTINGS)
    progress = held(monkeypatch, run, release=0, stop=7)
    with pytest.raises(StoppedHereError):
        train.build(run, run.writer("train"), progress)
    assert progress.sealed[7] == ""
    # Its parts are all there by now, and nothing is being written any more.
    assert run.storage.exists(f"train/checkpoints/{FIRST}/part-00003.safetensors")
    assert not any(thread.name == "checkpoint" for thread in threading.enumerate())
    assert not run.storage.exists(POINTER)
    monkeypatch.undo()
    train.build(run, run.writer("train"), Quiet())
    assert content(run) == calm(tmp_path / "calm")
    assert not list((tmp_path / "held/tiny/train/checkpoints").rglob("*.*"))


def test_a_checkpoint_in_another_format_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = planted(tmp_path, train=SETTINGS)
    with pytest.raises(StoppedHereError):
        train.build(run, run.writer("train"), held(monkeypatch, run, release=1, stop=9))
    monkeypatch.undo()
    pointer = json.loads(run.storage.read(POINTER))
    path = f"train/checkpoints/{pointer['slot']}/manifest.json"
    manifest = json.loads(run.storage.read(path)) | {"format": 2, "a_key_of_the_future": 1}
    data = json.dumps(manifest).encode()
    run.storage.write(path, data)
    pointer["sha256"] = hashlib.sha256(data).hexdigest()
    run.storage.write(POINTER, json.dumps(pointer).encode())
    with pytest.raises(StaleArtifactError, match="in format 2, this program reads format 1"):
        train.build(run, run.writer("train"), Quiet())


def test_tables_larger_than_the_copy_may_be_are_written_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = planted(tmp_path / "held", train={**SETTINGS, "checkpoint_copy_mib": 0})
    progress = held(monkeypatch, run, release=0)
    progress.gate.set()
    threads: list[str] = []
    monkeypatch.setattr(threading.Thread, "start", lambda self: threads.append(self.name))
    train.build(run, run.writer("train"), progress)
    assert progress.sealed[5] == FIRST
    assert "checkpoint" not in threads
    assert content(run) == calm(tmp_path / "calm")


def full_disk_at_rank_one(run: Run) -> Any:
    """Its parts cannot be written; everything else can."""
    group = train.Group.current()
    if group.rank == 1:

        def refuse(storage: Storage, path: str, data: bytes) -> HashingFile:
            if "checkpoints/" in path:
                raise MachineError("the disk is full")
            return WRITE(storage, path, data)

        Storage.write = refuse  # type: ignore[method-assign]
    return train.train_worker(train.WorkerTask.of(run, run.writer("train")), group, Quiet())


def test_parts_that_one_worker_cannot_write_stop_all(tmp_path: Path) -> None:
    run = planted(tmp_path, train=SETTINGS)
    answers = run_ranks(full_disk_at_rank_one, 2, tmp_path, run)
    assert [type(a) for a in answers] == [train.StoppedError, MachineError], answers
    assert not run.storage.exists(POINTER)
