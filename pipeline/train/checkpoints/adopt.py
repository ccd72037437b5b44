"""Checkpoints of an earlier attempt, where each attempt has a folder of its own.

Another driver may still write to the earlier folder: its files are copied, and checked when they
are read.
"""

from __future__ import annotations

from embedmill.pipeline.store.lease import current_driver
from embedmill.pipeline.store.run import Run
from embedmill.pipeline.store.storage import Storage
from embedmill.pipeline.train.checkpoints.stored_slots import discard, stored_files
from embedmill.schemas.checkpoints import POINTER, TRIALS
from embedmill.schemas.train import LOG

__all__ = ["adopt_checkpoints", "discard_checkpoints"]

_BYTES = 4 << 20


def adopt_checkpoints(run: Run, storage: Storage) -> None:
    """Copy the latest checkpoint of an earlier attempt, its log and its trials, to a new one.

    Args:
        run: the run.
        storage: the folder of the new attempt; nothing happens where it is that of all attempts,
            or has a checkpoint.
    """
    folders = _folders(run)
    if folders[0].root != storage.root:
        return
    for earlier in folders[1:]:
        if storage.exists(POINTER.path) or storage.exists(TRIALS.path):
            return
        # The pointer comes last: it makes the others valid.
        for path in (LOG, *stored_files(earlier), TRIALS.path, POINTER.path):
            _copy(earlier, storage, path)


def discard_checkpoints(run: Run) -> None:
    """Remove the checkpoints of an unfinished training, so that the next one starts over."""
    for folder in _folders(run):
        discard(folder)


def _folders(run: Run) -> list[Storage]:
    """The folders of attempts, the latest first; the last one is that of the stage."""
    stage, driver = run.storage.at("train"), current_driver(run.storage)
    return [stage.below(folder) for folder in (driver.folders() if driver else [""])]


def _copy(source: Storage, target: Storage, path: str) -> None:
    if not source.exists(path):
        return
    with source.open(path) as raw, target.writer(path) as out:
        while data := raw.read(_BYTES):
            out.write(data)
