"""L2 by how often a row was met: by hand, and summed over an epoch of real steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from embedmill.pipeline.store.run import Run
from embedmill.pipeline.train import Group, Task
from embedmill.pipeline.train.data.batches import Epoch, Events
from embedmill.pipeline.train.objectives.l2_scaling import decay_of
from embedmill.pipeline.train.plan import Layout
from embedmill.pipeline.train.step import Steps
from embedmill.pipeline.train.tables.checkpoint import Cursor
from embedmill.pipeline.train.tables.embedding import ShardedEmbedding
from embedmill.pipeline.train.trainer import Trainer, prepared
from tests.support.ranks import run_ranks
from tests.support.stored import planted

# User rows 0, 2 of partition 0 and 1 of partition 1; user 3 and item 0 have no events.
USERS, ITEMS = (0, 0, 2, 0, 0, 1), (1, 1, 1, 1, 2, 2)


def factors(power: float) -> tuple[dict[int, float], list[float]]:
    """What the owned users' and all items' L2 is multiplied by, at one rank."""
    group = Group.joined()
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
    decay = decay_of(events, power, tables[0], tables[1])
    user_U, item_V = decay.users(tables[0].local(torch.tensor(own))), decay.items(torch.arange(3))
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


def test_power_one_holds_nothing(tmp_path: Path) -> None:
    run = planted(tmp_path, train={"objective": "rating", "l2": 0.1})
    trainer = prepared(Task.of(run, run.writer("train")), Group.joined(), Cursor())
    assert trainer.decay.users(torch.arange(2)) is None
    assert trainer.decay.items(torch.arange(2)) is None


def an_epoch(folder: Path, **changes: Any) -> tuple[float, Trainer]:
    """Loss of all events of an epoch, with tables that stay as they began."""
    settings = {"objective": "rating", "dim": 3, "batch_size": 50, "learning_rate": 1e-30}
    run: Run = planted(folder, train={**settings, **changes})
    trainer = prepared(Task.of(run, run.writer("train")), Group.joined(), Cursor())
    for table in (trainer.users, trainer.items):
        table.weight[:, -1] = torch.linspace(-1, 1, len(table.weight))  # biases begin at zero
    order = Epoch.drawn(trainer.events, trainer.plan, trainer.layout, trainer.seed, 0)
    steps, total = Steps(trainer, order), 0.0
    for step in range(trainer.plan.steps):
        loss = steps.take(step)
        total += loss * sum(trainer.plan.batch_sizes(step))
    return total, trainer


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_an_epoch_puts_l2_times_events_to_the_power_on_a_row(power: float, tmp_path: Path) -> None:
    bare, _ = an_epoch(tmp_path / "bare")
    damped, trainer = an_epoch(tmp_path / "damped", l2=0.3, l2_power=power, l2_bias=0.05)
    expected = 0.0
    for table, rows_E in (
        (trainer.users, trainer.users.rows.local(trainer.events.user_E.long())),
        (trainer.items, trainer.items.rows.local(trainer.events.item_E.long())),
    ):
        count_L = torch.bincount(rows_E, minlength=len(table.weight)).double()
        met_L = torch.where(count_L > 0, count_L**power, 0.0)
        square_LD = table.weight.double().square()
        expected += float((met_L * square_LD[:, :-1].sum(1)).sum()) * 0.3
        expected += float((met_L * square_LD[:, -1]).sum()) * 0.05
    assert damped - bare == pytest.approx(expected, rel=1e-5)
