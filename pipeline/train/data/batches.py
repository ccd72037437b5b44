"""Train events of a worker's partitions, and the batches that the plan takes from them.

Events are most of what is held beside the tables: 8 bytes each where rows fit into 32 bits
and all weights are alike, 12 otherwise, and 4 for the order of an epoch.

Legend: E events here, B events of a step here, I items of the catalogue, S steps of an epoch,
N events of one partition.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
import torch
from torch import Tensor

from embedmill.pipeline.errors import ContractError
from embedmill.pipeline.store.artifact import Artifact
from embedmill.pipeline.train.collectives import Group
from embedmill.pipeline.train.plan import Layout, Plan, generator

__all__ = ["Epoch", "Events", "Votes", "item_counts", "mean_weight", "read_events", "votes"]

_EVENT = ["user_row", "item_row", "weight"]
_PAIR = ["center_row", "context_row", "count"]


@dataclass(frozen=True)
class Events:
    """Events of the owned partitions, one after the other; `sizes` by owned partition.

    `user_E` and `item_E` are int32 where all rows fit, else int64; `weight_E` is float32, and
    one number seen E times (stride 0) where all weights are alike.
    """

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

    def parts(self) -> Iterator[Events]:
        """The events of each owned partition, as views."""
        for stop, size in zip(accumulate(self.sizes), self.sizes, strict=True):
            yield self.where(slice(stop - size, stop))

    def where(self, kept: Tensor | slice) -> Events:
        """Some of the events, as of one partition; `kept` is a mask or a slice."""
        user_N = self.user_E[kept]
        return Events(user_N, self.item_E[kept], self.weight_E[kept], (len(user_N),))


def integers(count: int) -> torch.dtype:
    """The smallest kind of integer that counts to `count`."""
    return torch.int32 if count < 2**31 else torch.int64


def read_events(
    shards: Artifact, splits: Sequence[str], layout: Layout, rows: tuple[int, int]
) -> Events:
    """Read the owned partitions, one split after the other in each, in the order of the files.

    Pairs of items come as events too: the center is the user, the count the weight.

    Args:
        shards: the artifact.
        splits: which splits, or folders of pairs.
        layout: which partitions.
        rows: users and items.

    Raises:
        ContractError: a file has other rows than its manifest says.
    """
    held = {entry.path: entry.rows or 0 for entry in shards.files()}
    paths = [[f"{split}/part-{p:05d}.parquet" for split in splits] for p in layout.owned]
    sizes = tuple(sum(held.get(path, 0) for path in part) for part in paths)
    user_E, item_E = (torch.empty(sum(sizes), dtype=integers(max(rows))) for _ in rows)
    weights, at = _Weights(sum(sizes)), 0
    for path in (path for part in paths for path in part):
        names = _PAIR if path.startswith("pairs") else _EVENT
        table = shards.read_table(path, names)
        if table.num_rows != held[path]:
            raise ContractError(
                f"has {table.num_rows:,} rows, the manifest says {held[path]:,}",
                where=shards.url(path),
            )
        part = slice(at, at + table.num_rows)
        user_N, item_N, weight_N = (table[name].to_numpy() for name in names)
        user_E.numpy()[part] = user_N
        item_E.numpy()[part] = item_N
        weights.put(part, weight_N)
        at = part.stop
    return Events(user_E, item_E, weights.weight_E, sizes)


class _Weights:
    """Weights as they come: one number for as long as they are alike, then one for each."""

    def __init__(self, size: int) -> None:
        self.weight_E = torch.ones(1).expand(size)
        self._began = False

    def put(self, part: slice, weight_N: np.ndarray) -> None:
        """Take in the weights of the events `part`."""
        if not len(weight_N):
            return
        if not self._began:
            self.weight_E = torch.tensor([float(weight_N[0])]).expand(len(self.weight_E))
            self._began = True
        if self.weight_E.stride(0) == 0 and (weight_N != float(self.weight_E[0])).any():
            self.weight_E = self.weight_E.contiguous()
        if self.weight_E.stride(0):
            self.weight_E.numpy()[part] = weight_N


@dataclass(frozen=True)
class Epoch:
    """One epoch's order: step s takes `order_E[ends[s] : ends[s + 1]]`."""

    order_E: Tensor
    ends: list[int]

    @staticmethod
    def drawn(events: Events, plan: Plan, layout: Layout, seed: int, epoch: int) -> Epoch:
        """Shuffle every partition by itself, then lay the slices of a step side by side."""
        counts_S = torch.zeros(plan.steps, dtype=torch.int64)
        for size in events.sizes:
            counts_S += _bounds(size, plan.steps).diff()
        ends_S = torch.cat([counts_S.new_zeros(1), counts_S.cumsum(0)])
        kind = integers(len(events))
        order_E, place_S, start = torch.empty(len(events), dtype=kind), ends_S[:-1].clone(), 0
        for partition, size in zip(layout.owned, events.sizes, strict=True):
            source, bounds_S = generator(seed, "epoch", epoch, partition), _bounds(size, plan.steps)
            share_S = bounds_S.diff()
            # Where the partition's n-th event goes: into its step, after the lower partitions.
            place_N = (place_S - bounds_S[:-1]).repeat_interleave(share_S) + torch.arange(size)
            order_E[place_N] = torch.randperm(size, generator=source, dtype=kind) + start
            place_S += share_S
            start += size
        return Epoch(order_E, ends_S.tolist())

    def batch(self, step: int) -> Tensor:
        """Which events the step takes, by rising partition, int64 [B]."""
        return self.order_E[self.ends[step] : self.ends[step + 1]].long()


def _bounds(size: int, steps: int) -> Tensor:
    """Where the slices of a partition of `size` begin and end, int64 [S + 1]."""
    return torch.arange(steps + 1) * size // max(1, steps)


def item_counts(events: Events, items: int, group: Group) -> Tensor:
    """Train events of every item over all workers, int64 [I]."""
    counts_I = torch.zeros(items, dtype=torch.int64)
    for part in events.parts():
        counts_I += torch.bincount(part.item_E, minlength=items)
    return group.sum(counts_I.to(group.device)).cpu()


def mean_weight(events: Events, layout: Layout, group: Group) -> float:
    """Mean weight over all workers, the same to the last bit for any number of them."""
    return _mean([part.weight_E for part in events.parts()], layout, group)


@dataclass(frozen=True)
class Votes:
    """How much each event counts: its weight to `power` over `mean`; None: once, whatever it says.

    An event of weight 0 or less does not count, whatever the power.
    """

    power: float | None = None
    mean: float = 1.0

    def of(self, weight_B: Tensor) -> Tensor:
        """Votes of events by their weights, float32 [B]."""
        if self.power is None:
            return torch.ones_like(weight_B)
        return torch.where(weight_B > 0, weight_B.clamp(min=0) ** self.power / self.mean, 0.0)


def votes(events: Events, power: float, layout: Layout, group: Group) -> Votes:
    """Votes whose mean over the events of all workers is 1 (or 0, where none counts)."""
    plain = Votes(power)
    mean = _mean((plain.of(part.weight_E) for part in events.parts()), layout, group)
    return Votes(power, mean if mean > 0 else 1.0)


def _mean(parts: Iterable[Tensor], layout: Layout, group: Group) -> float:
    """Mean of values that come by owned partition, one partition at a time."""
    own = [(float(part_N.double().sum()), float(len(part_N))) for part_N in parts]
    sums = torch.tensor(own, dtype=torch.float64).reshape(len(own), 2).to(group.device)
    every = group.by_partition(sums, layout).tolist()
    return math.fsum(one for one, _ in every) / max(1.0, math.fsum(number for _, number in every))
