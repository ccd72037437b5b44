"""Train events of a worker's partitions, and the batches that the plan takes from them.

Legend: E events here, B events of a step here, I items of the catalogue, S steps of an epoch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pipeline.artifact import Artifact
from pipeline.train.collectives import Group
from pipeline.train.plan import Layout, Plan, generator

__all__ = ["Epoch", "Events", "item_counts", "joined", "mean_weight", "read_events", "votes"]


@dataclass(frozen=True)
class Events:
    """Events of the owned partitions, one after the other; `sizes` by owned partition."""

    user_E: Tensor
    item_E: Tensor
    weight_E: Tensor
    sizes: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.user_E)

    def none(self) -> Events:
        """No events of the same partitions."""
        sizes = tuple(0 for _ in self.sizes)
        return Events(self.user_E[:0], self.item_E[:0], self.weight_E[:0], sizes)


def read_events(shards: Artifact, split: str, layout: Layout) -> Events:
    """Read one split of the owned partitions, in the order of the files."""
    users, items, weights = [], [], []
    for partition in layout.owned:
        path = f"{split}/part-{partition:05d}.parquet"
        table = shards.read_table(path, ["user_row", "item_row", "weight"])
        users.append(torch.from_numpy(table["user_row"].to_numpy().copy()))
        items.append(torch.from_numpy(table["item_row"].to_numpy().copy()))
        weights.append(torch.from_numpy(table["weight"].to_numpy().copy()))
    empty = torch.empty(0, dtype=torch.int64)
    return Events(
        torch.cat([empty, *users]),
        torch.cat([empty, *items]),
        torch.cat([empty.float(), *weights]),
        tuple(len(part) for part in users),
    )


def joined(first: Events, second: Events) -> Events:
    """Events of both, partition by partition."""
    columns = []
    for one, other in (
        (first.user_E, second.user_E),
        (first.item_E, second.item_E),
        (first.weight_E, second.weight_E),
    ):
        ones = torch.split(one, list(first.sizes))
        others = torch.split(other, list(second.sizes))
        columns.append(torch.cat([p for pair in zip(ones, others, strict=True) for p in pair]))
    sizes = tuple(a + b for a, b in zip(first.sizes, second.sizes, strict=True))
    return Events(columns[0], columns[1], columns[2], sizes)


@dataclass(frozen=True)
class Epoch:
    """One epoch's order: step s takes `order_E[ends[s] : ends[s + 1]]`."""

    order_E: Tensor
    ends: list[int]

    @staticmethod
    def drawn(events: Events, plan: Plan, layout: Layout, seed: int, epoch: int) -> Epoch:
        """Shuffle every partition by itself, then lay the slices of a step side by side."""
        orders, steps, start = [], [], 0
        for partition, size in zip(layout.owned, events.sizes, strict=True):
            source = generator(seed, "epoch", epoch, partition)
            orders.append(torch.randperm(size, generator=source) + start)
            bounds = torch.arange(plan.steps + 1) * size // plan.steps
            steps.append(torch.arange(plan.steps).repeat_interleave(bounds.diff()))
            start += size
        empty = torch.empty(0, dtype=torch.int64)
        step_E = torch.cat([empty, *steps])
        order_E = torch.cat([empty, *orders])[torch.argsort(step_E, stable=True)]
        counts = torch.bincount(step_E, minlength=plan.steps)
        return Epoch(order_E, [0, *counts.cumsum(0).tolist()])

    def batch(self, step: int) -> Tensor:
        """Which events the step takes, by rising partition, int64 [B]."""
        return self.order_E[self.ends[step] : self.ends[step + 1]]


def item_counts(events: Events, items: int, group: Group) -> Tensor:
    """Train events of every item over all workers, int64 [I]."""
    counts_I = torch.bincount(events.item_E, minlength=items)
    return group.sum(counts_I.to(group.device)).cpu()


def mean_weight(events: Events, layout: Layout, group: Group) -> float:
    """Mean weight over all workers, the same to the last bit for any number of them."""
    parts = torch.split(events.weight_E.double(), list(events.sizes)) if events.sizes else ()
    own = torch.tensor([float(part.sum()) for part in parts], dtype=torch.float64)
    sums = group.by_partition(own[:, None].to(group.device), layout)
    sizes = torch.tensor(events.sizes, dtype=torch.float64)
    total = group.by_partition(sizes[:, None].to(group.device), layout)
    return math.fsum(sums.flatten().tolist()) / max(1.0, math.fsum(total.flatten().tolist()))


def votes(events: Events, power: float, layout: Layout, group: Group) -> Tensor:
    """How much each event counts: its weight to a power, over the mean of all workers.

    An event of weight 0 or less does not count, whatever the power.

    Returns:
        float32 [E].
    """
    counted_E = torch.where(events.weight_E > 0, events.weight_E.clamp(min=0) ** power, 0.0)
    mean = mean_weight(replace(events, weight_E=counted_E), layout, group)
    return counted_E / mean if mean > 0 else counted_E
