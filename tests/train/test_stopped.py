"""Training that is killed, that fails at one rank or at all, and that goes on."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from embedmill.pipeline import train
from embedmill.pipeline.errors import (
    CorruptArtifactError,
    MachineError,
    NotFiniteError,
    StaleArtifactError,
)
from embedmill.pipeline.log import Quiet
from embedmill.pipeline.store.run import Run
from embedmill.pipeline.train.assembly import load_trainer
from embedmill.pipeline.train.checkpoints.checkpoint import Cursor
from embedmill.pipeline.train.loop import _end_epoch as end_epoch
from tests.support.ranks import run_ranks
from tests.support.trained import (
    AT_ONCE,
    OBJECTIVES,
    SOFTMAX,
    KillAt,
    KilledError,
    Notes,
    run_of,
    tables,
    train_rank,
)
from tests.support.worlds import config


@pytest.mark.parametrize(
    ("objective", "step"),
    [
        ("softmax", 1),
        ("softmax", 10),
        ("softmax", 40),
        ("rating", 9),
        ("rating", 14),
        ("ials", 1),
        ("ials", 4),
        ("ials", 9),
        ("spectral", 1),
        ("spectral", 2),
        ("spectral", 5),
        ("spectral", 8),
        ("item2vec", 6),
        ("item2vec", 16),
    ],
)
def test_stopped_and_gone_on_ends_in_the_same_bytes(
    objective: str, step: int, tmp_path: Path
) -> None:
    calm = run_of(tmp_path / "calm", objective)
    train.build(calm, calm.writer("train"), Quiet())
    every = 1 if objective in ("ials", "spectral") else 4
    run = run_of(tmp_path / "killed", objective, **AT_ONCE, checkpoint_steps=every)
    with pytest.raises(KilledError):
        train.build(run, run.writer("train"), KillAt(step))
    assert run.manifest("train") is None
    notes = Notes()
    train.build(run, run.writer("train"), notes)
    assert any("resumed" in text for text in notes.texts) == (step > every)
    assert run.manifest("train").content == calm.manifest("train").content  # type: ignore[union-attr]
    left = sorted(p.name for p in (tmp_path / "killed/tiny/train/checkpoints").rglob("*.*"))
    assert left == []


def test_killed_in_mid_epoch_and_gone_on_with_other_workers(tmp_path: Path) -> None:
    calm = run_of(tmp_path / "calm", "softmax")
    train.build(calm, calm.writer("train"), Quiet())
    expected = tables(calm)
    run = run_of(tmp_path / "killed", "softmax", **AT_ONCE, checkpoint_steps=4)
    answers = run_ranks(train_rank, 2, tmp_path, run, 14, True)
    assert answers[0] == 9
    assert isinstance(answers[1], RuntimeError)
    cursor = json.loads(run.storage.read("train/checkpoints/latest.json"))["slot"]
    assert cursor == "epoch-00001-0000004"
    shutil.copytree(tmp_path / "killed", tmp_path / "again")
    for world, root in ((3, tmp_path / "killed"), (1, tmp_path / "again")):
        again = Run(run.config.model_copy(
            update={"run": run.config.run.model_copy(update={"root": str(root)})}
        ))  # fmt: skip
        answers = run_ranks(train_rank, world, tmp_path, again, 0)
        assert isinstance(answers[0], train.TrainingResult), answers[0]
        for name, got in tables(again).items():
            torch.testing.assert_close(got, expected[name], rtol=1e-3, atol=1e-4)


def test_a_checkpoint_of_another_config_is_refused(tmp_path: Path) -> None:
    run = run_of(tmp_path, "softmax")
    with pytest.raises(KilledError):
        train.build(run, run.writer("train"), KillAt(20))
    other = Run(config(tmp_path, "log.tsv", train={**SOFTMAX, "learning_rate": 0.2}))
    with pytest.raises(StaleArtifactError, match=r"train\.learning_rate was 0\.01, is now 0\.2"):
        train.build(other, other.writer("train"), Quiet())
    train.discard_checkpoints(other)
    train.build(other, other.writer("train"), Quiet())
    assert other.up_to_date("train")


def test_a_damaged_checkpoint_is_noticed(tmp_path: Path) -> None:
    run = run_of(tmp_path, "softmax")
    with pytest.raises(KilledError):
        train.build(run, run.writer("train"), KillAt(20))
    slot = json.loads(run.storage.read("train/checkpoints/latest.json"))["slot"]
    path = run.storage.local_path(f"train/checkpoints/{slot}/part-00002.safetensors")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(CorruptArtifactError, match=r"part-00002\.safetensors.*--rebuild"):
        train.build(run, run.writer("train"), Quiet())
    path.unlink()
    with pytest.raises(CorruptArtifactError, match=r"part-00002\.safetensors"):
        train.build(run, run.writer("train"), Quiet())
    run.storage.write("train/checkpoints/latest.json", b"{")
    with pytest.raises(CorruptArtifactError, match=r"latest\.json.*--rebuild"):
        train.build(run, run.writer("train"), Quiet())
    train.discard_checkpoints(run)
    train.build(run, run.writer("train"), Quiet())
    assert run.up_to_date("train")


@pytest.mark.parametrize("objective", ["softmax", "rating", "item2vec"])
def test_a_loss_that_is_not_finite_publishes_nothing(objective: str, tmp_path: Path) -> None:
    loss: dict[str, Any] = {"softmax": {"similarity": "dot", "bias": False}}.get(objective, {})
    run = run_of(tmp_path, objective, **loss, learning_rate=1e30)
    with pytest.raises(NotFiniteError, match=r"epoch 1, step \d+ of \d+.*Lower train\.learning_"):
        train.build(run, run.writer("train"), Quiet())
    assert run.manifest("train") is None


def test_a_sweep_that_is_not_finite_publishes_nothing(tmp_path: Path) -> None:
    run = run_of(tmp_path, "ials", init_scale=1e30)
    message = r"epoch 1, step 1 of 2.*Raise train\.ials\.regularization"
    with pytest.raises(NotFiniteError, match=message):
        train.build(run, run.writer("train"), Quiet())
    assert run.manifest("train") is None


def test_a_sweep_killed_between_its_halves_goes_on_with_other_workers(tmp_path: Path) -> None:
    calm = run_of(tmp_path / "calm", "ials")
    train.build(calm, calm.writer("train"), Quiet())
    run = run_of(tmp_path / "killed", "ials", **AT_ONCE, checkpoint_steps=1)
    assert run_ranks(train_rank, 2, tmp_path, run, 4, True)[0] == 9
    cursor = json.loads(run.storage.read("train/checkpoints/latest.json"))["slot"]
    assert cursor == "epoch-00001-0000001"
    answers = run_ranks(train_rank, 3, tmp_path, run, 0)
    assert isinstance(answers[0], train.TrainingResult), answers[0]
    expected = tables(calm)
    for name, got in tables(run).items():
        torch.testing.assert_close(got, expected[name], rtol=1e-3, atol=1e-4)


def test_all_ranks_stop_at_a_loss_that_is_not_finite(tmp_path: Path) -> None:
    run = run_of(tmp_path, "rating", learning_rate=1e30)
    answers = run_ranks(train_rank, 2, tmp_path, run, 0)
    assert [type(a) for a in answers] == [NotFiniteError, NotFiniteError]


def overflowed(run: Run) -> None:
    """A row of rank 1 leaves the range of a float in the last update of an epoch."""
    group = train.Group.current()
    trainer = load_trainer(train.WorkerTask.of(run, run.writer("train")), group, Cursor())
    if group.rank == 1:
        trainer.model.users.weight[0] = torch.inf
    end_epoch(trainer)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_all_ranks_stop_at_a_row_that_is_not_finite(objective: str, tmp_path: Path) -> None:
    answers = run_ranks(overflowed, 2, tmp_path, run_of(tmp_path, objective))
    assert [type(a) for a in answers] == [NotFiniteError, NotFiniteError], answers
    assert "in epoch 1, after its last step" in str(answers[0])


def full_disk(run: Run) -> train.TrainingResult:
    """Rank 1 cannot write."""
    group = train.Group.current()
    if group.rank == 1:

        def refuse(*_: Any) -> Any:
            raise MachineError("the disk is full")

        from embedmill.pipeline.store.storage import Storage

        Storage.write = refuse  # type: ignore[method-assign]
    return train.train_worker(train.WorkerTask.of(run, run.writer("train")), group, Quiet())


def test_a_disk_that_is_full_at_one_rank_stops_all(tmp_path: Path) -> None:
    answers = run_ranks(full_disk, 3, tmp_path, run_of(tmp_path, "rating"))
    assert [type(a) for a in answers] == [train.StoppedError, MachineError, train.StoppedError]
