"""A training goes on where an earlier attempt stopped, from a folder of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from embedmill.pipeline import train
from embedmill.pipeline.store.lease import drive
from embedmill.pipeline.store.run import Run
from embedmill.schemas.checkpoints import POINTER
from tests.support.lease_owner import plant
from tests.support.runs import planted
from tests.support.trained import AT_ONCE, SOFTMAX, KillAt, KilledError, Notes

SETTINGS = {**SOFTMAX, **AT_ONCE, "checkpoint_steps": 2}


def stopped(run: Run, step: int) -> None:
    """One attempt that ends at a step, by a driver whose tasks may outlive it."""
    with pytest.raises(KilledError), drive(run.storage) as driver:
        train.build(run, run.writer("train"), KillAt(step))
    plant(run.storage, fence=driver.lease.fence, pid=1 << 22, outlived=True)


def test_checkpoints_of_earlier_attempts_are_adopted(tmp_path: Path) -> None:
    calm, torn = (planted(tmp_path / name, train=SETTINGS) for name in ("calm", "torn"))
    train.build(calm, calm.writer("train"), Notes())
    stopped(torn, 9)
    assert torn.storage.exists(f"train/{POINTER.path}")
    stopped(torn, 9)  # it resumed, so it is as much further
    assert torn.storage.exists(f"train/attempt-2/{POINTER.path}")
    notes = Notes()
    with drive(torn.storage):
        train.build(torn, torn.writer("train"), notes)
    assert [text for text in notes.texts if text.startswith("resumed at")] == [
        "resumed at epoch 3, step 1"
    ]
    done = torn.artifact("train")
    assert done.manifest.folder == "attempt-3"
    assert done.manifest.content == calm.artifact("train").manifest.content
    assert list(done.verify()) == []


def test_a_rebuild_adopts_none(tmp_path: Path) -> None:
    run = planted(tmp_path, train=SETTINGS)
    stopped(run, 9)
    notes = Notes()
    with drive(run.storage):
        train.discard_checkpoints(run)
        train.build(run, run.writer("train"), notes)
    assert not [text for text in notes.texts if text.startswith("resumed")]
