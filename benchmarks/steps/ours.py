"""The trainer's own step on two workers, without the data stages before it."""

from __future__ import annotations

from typing import Any

import torch
from steps import turns

from embedmill.pipeline.config import parse
from embedmill.pipeline.store.run import Run
from embedmill.pipeline.train.assembly import assemble
from embedmill.pipeline.train.checkpoints.checkpoint import Cursor
from embedmill.pipeline.train.collectives import Group
from embedmill.pipeline.train.data.examples import Examples
from embedmill.pipeline.train.data.train_events import Events
from embedmill.pipeline.train.plan import Layout
from embedmill.pipeline.train.trainer import Trainer


def loss_keys(name: str) -> dict[str, Any]:
    """The keys of a loss by its name: "bsl", or "bsl+top_k" with weights as in SL@K."""
    loss, _, top_k = name.partition("+")
    keys = {"loss": loss, **({"top_k": 20} if top_k else {})}
    return {"softmax": keys} if name != "softmax" else {}


def run_of(task: turns.Task) -> Run:
    """Defaults but for the task."""
    train = {
        "dim": task.dim,
        "batch_size": task.batch * task.world,
        "negatives": task.negatives,
        "tables": "memory",
        **({"optimizer": task.optimizer} if task.optimizer else {}),
        **loss_keys(task.loss),
    }
    return Run(
        parse(
            {
                "run": {"name": "step", "root": task.store + "-runs"},
                "events": {"paths": "none", "time": "time"},
                "train": train,
            }
        )
    )


def events_of(task: turns.Task, layout: Layout) -> Events:
    """The events of the owned partitions."""
    user_E, item_E = turns.events(task)
    partition_E = user_E % layout.partitions
    sizes = torch.bincount(partition_E, minlength=layout.partitions).tolist()
    parts = torch.split(torch.argsort(partition_E, stable=True), sizes)
    own_E = torch.cat([parts[p] for p in layout.owned])
    weight_E = torch.ones(1).expand(len(own_E))
    owned = tuple(sizes[p] for p in layout.owned)
    return Events(user_E[own_E].int(), item_E[own_E].int(), weight_E, owned)


def trainer_of(task: turns.Task) -> Trainer:
    run, group = run_of(task), Group.current()
    events = events_of(task, Layout(run.config.run.partitions, group.world, group.rank))
    examples = Examples(task.users, task.items, events, events, events.empty())
    return assemble(run, examples, group, Cursor())


def main() -> None:
    task = turns.joined()
    trainer = trainer_of(task)
    take_step = trainer.start_epoch()
    turns.take_turns(lambda step: take_step(step % trainer.plan.steps))


if __name__ == "__main__":
    main()
