"""The trainer's own step on two workers, without the data stages before it."""

from __future__ import annotations

import torch
from steps import turns

from pipeline.config import TrainConfig
from pipeline.train import metrics
from pipeline.train.batches import Epoch, Events, item_counts
from pipeline.train.checkpoint import Cursor
from pipeline.train.collectives import Group
from pipeline.train.losses import LossSettings
from pipeline.train.negatives import sampler
from pipeline.train.objectives import OBJECTIVES
from pipeline.train.optim import OPTIMIZERS
from pipeline.train.plan import Layout, StepPlan
from pipeline.train.step import take_step
from pipeline.train.tables import ShardedEmbedding, initial_weight
from pipeline.train.trainer import Table, Trainer

PARTITIONS, SEED = 64, 1


def config_of(task: turns.Task) -> TrainConfig:
    """Defaults but for the task."""
    given = {"optimizer": task.optimizer} if task.optimizer else {}
    return TrainConfig(
        dim=task.dim, batch_size=task.batch * task.world, negatives=task.negatives, **given
    )


def events_of(task: turns.Task, layout: Layout) -> tuple[Events, StepPlan]:
    """The owned partitions' events, and the plan of all."""
    user_E, item_E = turns.events(task)
    sizes = torch.bincount(user_E % PARTITIONS, minlength=PARTITIONS).tolist()
    order_E = torch.argsort(user_E % PARTITIONS, stable=True)
    parts = torch.split(order_E, sizes)
    own_E = torch.cat([parts[p] for p in layout.owned])
    owned = tuple(sizes[p] for p in layout.owned)
    events = Events(user_E[own_E], item_E[own_E], torch.ones(len(own_E)), owned)
    return events, StepPlan(tuple(sizes), task.batch * task.world)


def table_of(name: str, rows: int, config: TrainConfig, group: Group, layout: Layout) -> Table:
    weight_LD = initial_weight(name, rows, config.dim, layout, seed=SEED, scale=config.dim**-0.5)
    columns = (slice(0, config.dim),)
    state = OPTIMIZERS[config.optimizer].state(weight_LD, columns)
    return Table(ShardedEmbedding(weight_LD, rows, layout, group), state, columns)


def trainer_of(task: turns.Task) -> Trainer:
    config, group = config_of(task), Group.joined()
    layout = Layout(PARTITIONS, group.world, group.rank)
    events, plan = events_of(task, layout)
    counts_I = item_counts(events, task.items, group)
    return Trainer(
        config=config, seed=SEED, group=group, layout=layout, plan=plan,
        objective=OBJECTIVES["softmax"],
        settings=LossSettings(False, config.similarity, config.temperature, config.l2),
        events=events, votes_E=events.weight_E,
        chosen=metrics.validation(events, events.none(), layout, group, limit=1, seed=SEED),
        sampler=sampler(
            counts_I, number=config.negatives, power=config.negatives_power,
            in_batch=False, seed=SEED,
        ),
        users=table_of("users", task.users, config, group, layout),
        items=table_of("items", task.items, config, group, layout),
        sweep=None,
        cursor=Cursor(),
    )  # fmt: skip


def main() -> None:
    task = turns.joined()
    trainer = trainer_of(task)
    epoch = Epoch.drawn(trainer.events, trainer.plan, trainer.layout, SEED, 0)

    def take(step: int) -> None:
        take_step(trainer, step % trainer.plan.steps, epoch.batch(step % trainer.plan.steps))

    turns.take_turns(take)


if __name__ == "__main__":
    main()
