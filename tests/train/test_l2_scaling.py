"""L2 by how often a row was met: by hand, and summed over an epoch of real steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from embedmill.pipeline.store.run import Run
from embedmill.pipeline.train import Group, WorkerTask
from embedmill.pipeline.train.assembly import load_trainer
from embedmill.pipeline.train.checkpoints.checkpoint import Cursor
from embedmill.pipeline.train.data.l2_scaling import l2_scaling
from embedmill.pipeline.train.data.train_events import Events
from embedmill.pipeline.train.plan import Layout
from embedmill.pipeline.train.tables.embedding import ShardedEmbedding
from embedmill.pipeline.train.trainer import Trainer
from tests.support.ranks import run_ranks
from tests.support.runs import planted

# User rows 0, 2 of partition 0 and 1 of partition 1; user 3 and item 0 have no events.
USERS, ITEMS = (0, 0, 2, 0, 0, 1), (1, 1, 1, 1, 2, 2)


def factors(power: float) -> tuple[dict[int, float], list[float]]:
    """What the owned users' and all items' L2 is multiplied by, at one rank."""
    group = Group.current()
    layout = Layout(2, group.world, group.rank)
    own = [row for p in layout.owned for row in range(p, 4, 2)]
    kept = [at for at, user in enumerate(USERS) if user in own]
    kept.sort(key=lambda at: USERS[at] % 2)
    user_E, item_E = (torch.tensor(rows)[kept] for rows in (USERS, ITEMS))
    sizes = tuple(int((user_E % 2 == p).sum()) for p in layout.owned)
    events = Events(user_E.int(), item_E.int(), torch.ones(len(kept)), sizes)
    tables = [
        ShardedEmbedding(torch.zeros(layout.local_rows(rows), 1), rows, layout, group)
        for rows in (4, 3)
    ]
    scaling = l2_scaling(events, power, tables[0], tables[1])
    user_U = scaling.users(tables[0].local_index(torch.tensor(own)))
    item_V = scaling.items(torch.arange(3))
    assert user_U is not None
    assert item_V is not None
    return dict(zip(own, user_U.tolist(), strict=True)), item_V.tolist()


@pytest.mark.parametrize("world", [1, 2])
def test_factors_by_hand(world: int, tmp_path: Path) -> None:
    """User 0 has four events, users 1 and 2 one; item 1 has four, item 2 two."""
    users: dict[int, float] = {}
    for own, items in run_ranks(factors, world, tmp_path, 0.5):
        users |= own
        assert items == pytest.approx([1, 1 / 2, 2**-0.5])
    assert users == {0: 0.5, 1: 1.0, 2: 1.0, 3: 1.0}


def test_power_one_needs_no_factors(tmp_path: Path) -> None:
    run = planted(tmp_path, train={"objective": "rating", "l2": 0.1, "l2_power": 1.0})
    trainer = load_trainer(WorkerTask.of(run, run.writer("train")), Group.current(), Cursor())
    assert trainer.data.l2_scaling.users(torch.arange(2)) is None
    assert trainer.data.l2_scaling.items(torch.arange(2)) is None


def an_epoch(folder: Path, **changes: Any) -> tuple[float, Trainer]:
    """Loss of all events of an epoch, with tables that stay as they began."""
    settings = {
        "objective": "rating", "dim": 3, "batch_size": 50, "learning_rate": 1e-30,
        "l2": 0.0, "l2_bias": 0.0, "implicit_rate": 0.0,
    }  # fmt: skip
    run: Run = planted(folder, train={**settings, **changes})
    trainer = load_trainer(WorkerTask.of(run, run.writer("train")), Group.current(), Cursor())
    for table in (trainer.model.users, trainer.model.items):
        table.weight[:, -1] = torch.linspace(-1, 1, len(table.weight))  # biases begin at zero
    take_step, total = trainer.start_epoch(), 0.0
    for step in range(trainer.plan.steps):
        loss = take_step(step)
        total += loss * sum(trainer.plan.batch_sizes(step))
    return total, trainer


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_an_epoch_puts_l2_times_events_to_the_power_on_a_row(power: float, tmp_path: Path) -> None:
    bare, _ = an_epoch(tmp_path / "bare")
    damped, trainer = an_epoch(tmp_path / "damped", l2=0.3, l2_power=power, l2_bias=0.05)
    expected = 0.0
    for table, rows_E in (
        (
            trainer.model.users,
            trainer.model.users.embedding.local_index(trainer.data.events.user_E.long()),
        ),
        (
            trainer.model.items,
            trainer.model.items.embedding.local_index(trainer.data.events.item_E.long()),
        ),
    ):
        count_L = torch.bincount(rows_E, minlength=len(table.weight)).double()
        met_L = torch.where(count_L > 0, count_L**power, 0.0)
        square_LD = table.weight.double().square()
        expected += float((met_L * square_LD[:, :-1].sum(1)).sum()) * 0.3
        expected += float((met_L * square_LD[:, -1]).sum()) * 0.05
    assert damped - bare == pytest.approx(expected, rel=1e-5)
