"""Thresholds of SL@K: the K-th best of each user, kept between epochs and over a resume."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional

from embedmill.pipeline import train
from embedmill.pipeline.log import Quiet
from embedmill.pipeline.train import thresholds
from embedmill.pipeline.train.assembly import WorkerTask, load_trainer
from embedmill.pipeline.train.checkpoints.checkpoint import Cursor
from embedmill.pipeline.train.collectives import Group
from embedmill.pipeline.train.plan import generator
from embedmill.pipeline.train.trainer import Trainer
from tests.support.ranks import run_ranks
from tests.support.runs import planted
from tests.support.trained import AT_ONCE, KillAt, KilledError, tables, train_rank

K = 5
SETTINGS: dict[str, Any] = {
    "objective": "softmax", "dim": 6, "batch_size": 40, "epochs": 3, "refit": True,
    "softmax": {
        "loss": "bsl", "negatives": 8, "top_k": K, "top_k_epochs": 2, "top_k_temperature": 0.2
    },
}  # fmt: skip


def trainer_of(folder: Path, **softmax: Any) -> Trainer:
    settings = {**SETTINGS, "softmax": {**SETTINGS["softmax"], **softmax}}
    run = planted(folder, train=settings)
    return load_trainer(WorkerTask.of(run, run.writer("train")), Group.current(), Cursor())


def state_of(trainer: Trainer) -> torch.Tensor:
    return trainer.model.users.state[thresholds.THRESHOLD][:, 0].clone()


@pytest.mark.parametrize("loss", ["bsl", "softmax"])
@pytest.mark.parametrize("sampled", [1000, 7])
def test_threshold_is_the_score_of_the_kth_best_of_own_and_sampled_items(
    sampled: int, loss: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(thresholds, "_SAMPLED", sampled)
    monkeypatch.setattr(thresholds, "_USERS", sampled)  # of 7: several blocks of a partition
    trainer = trainer_of(tmp_path, loss=loss, **({"bias": True} if loss == "softmax" else {}))
    if loss == "softmax":
        trainer.model.items.weight[:, -1] = torch.linspace(-1, 1, len(trainer.model.items.weight))
    thresholds.set_thresholds(trainer.model, trainer.data, trainer.runtime, epoch=4)
    users, items = trainer.model.users.embedding, trainer.model.items.embedding
    drawn = trainer.data.negatives.sample(
        sampled, generator(trainer.runtime.seed, thresholds.THRESHOLD, 4)
    )
    assert len(drawn) == items.rows if sampled == 1000 else 2 <= len(drawn) <= sampled
    item_ID, own = items.fetch(torch.arange(items.rows))[0], trainer.data.events
    found = state_of(trainer)
    for user in range(users.rows):
        at = int(users.local_index(torch.tensor(user)))
        mine = own.item_E[own.user_E == user].tolist()
        candidates = sorted({*drawn.tolist(), *mine})
        row_ND = item_ID[candidates]
        unit_D = functional.normalize(users.weight.detach()[at, :6], dim=0)
        score_N = functional.normalize(row_ND[:, :6]) @ unit_D
        if loss == "softmax":
            score_N = score_N + row_ND[:, 6]
        # A sampled item stands for as many as there are for one of the sample.
        each = torch.tensor([1.0 if c in mine else items.rows / len(drawn) for c in candidates])
        order = score_N.argsort(descending=True)
        reached = each[order].cumsum(0) >= K - 1e-6
        place = int(reached.float().argmax()) if reached.any() else len(order) - 1
        assert float(found[at]) == pytest.approx(float(score_N[order[place]]), abs=1e-5)


def test_thresholds_are_set_every_other_epoch_and_weigh_the_steps(tmp_path: Path) -> None:
    trainer, seen = trainer_of(tmp_path), []
    for epoch in range(3):
        trainer.cursor = Cursor(epoch=epoch)
        take_step = trainer.start_epoch()
        for step in range(trainer.plan.steps):
            take_step(step)
            seen.append(state_of(trainer))
    steps = trainer.plan.steps
    assert all(torch.equal(one, seen[0]) for one in seen[: 2 * steps])
    assert not torch.equal(seen[2 * steps], seen[0])
    assert torch.equal(seen[-1], seen[2 * steps])
    other = trainer_of(tmp_path / "plain", top_k=0, top_k_temperature=None, top_k_epochs=None)
    take_step = other.start_epoch()
    for step in range(steps):
        take_step(step)
    assert not torch.equal(other.model.users.weight, trainer.model.users.weight)
    assert thresholds.THRESHOLD not in other.model.users.state


def test_workers_and_resumes_change_nothing(tmp_path: Path) -> None:
    """Two workers train what one trains; one that was killed in each phase, the same bytes."""
    one = planted(tmp_path / "1", train={**SETTINGS, "checkpoint_steps": 4, **AT_ONCE})
    train.build(one, one.writer("train"), Quiet())
    two = planted(tmp_path / "2", train=SETTINGS)
    run_ranks(train_rank, 2, tmp_path, two, 0)
    expected = tables(one)
    for name, got in tables(two).items():
        torch.testing.assert_close(got, expected[name], rtol=1e-3, atol=1e-4)
    killed = planted(tmp_path / "3", train={**SETTINGS, "checkpoint_steps": 4, **AT_ONCE})
    for step in (6, 16):
        with pytest.raises(KilledError):
            train.build(killed, killed.writer("train"), KillAt(step))
    train.build(killed, killed.writer("train"), Quiet())
    assert killed.artifact("train").manifest.content == one.artifact("train").manifest.content
