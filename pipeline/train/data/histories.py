"""Users of an item model: the mean of the vectors of the items that they had.

A model of item pairs has centers and contexts, both by item, and no users of its own.

Legend: B users here, M events of theirs, V distinct items, D columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from embedmill.pipeline.store.artifact import Artifact
from embedmill.pipeline.train.data.batches import Events, integers
from embedmill.pipeline.train.plan import Layout, rows_in
from embedmill.pipeline.train.tables.embedding import ShardedEmbedding

__all__ = ["Histories", "read_latest"]

_EVENTS = 1 << 18  # events whose items are fetched at once


@dataclass(frozen=True)
class Histories:
    """The events that make the vectors of owned users, and how many users there are."""

    events: Events
    users: int
    layout: Layout

    def of(self, user_B: Tensor, items: ShardedEmbedding) -> Tensor:
        """Vectors of some owned users, rising; a collective.

        Returns:
            float [B, D]: the mean of the items' vectors at length one; 0 for a user without any.
        """
        places, rows = [user_B[:0]], [user_B[:0]]
        for part in self.events.parts() if len(user_B) else ():
            user_M = part.user_E.long()
            place_M = torch.searchsorted(user_B, user_M).clamp_(max=len(user_B) - 1)
            ours_M = user_B[place_M] == user_M
            places.append(place_M[ours_M])
            rows.append(part.item_E[ours_M].long())
        return _means(torch.cat(places), torch.cat(rows), len(user_B), items)

    def partition(self, partition: int, items: ShardedEmbedding) -> Tensor:
        """Vectors of a partition's users, float [n, D] (none, if not owned); a collective."""
        if partition not in self.layout.owned:
            nothing = torch.empty(0, dtype=torch.int64)
            return _means(nothing, nothing, 0, items)
        part = list(self.events.parts())[self.layout.owned.index(partition)]
        size = rows_in(partition, self.layout.partitions, self.users)
        place_M = part.user_E.long() // self.layout.partitions
        return _means(place_M, part.item_E.long(), size, items)


def _means(place_M: Tensor, item_M: Tensor, size: int, items: ShardedEmbedding) -> Tensor:
    device = items.group.device
    sum_BD = torch.zeros((size, items.width), device=device)
    # As many rounds at every worker: each is a collective.
    for at in range(items.group.max(-(-len(item_M) // _EVENTS))):
        part = slice(at * _EVENTS, (at + 1) * _EVENTS)
        row_V, index = torch.unique(item_M[part].to(device), return_inverse=True)
        unit_VD = functional.normalize(items.fetch(row_V)[0])
        sum_BD.index_add_(0, place_M[part].to(device), unit_VD[index])
    number_B = torch.bincount(place_M, minlength=size).clamp_(min=1).to(device)
    return sum_BD / number_B[:, None]


def read_latest(
    shards: Artifact, splits: Sequence[str], layout: Layout, rows: tuple[int, int], last: int
) -> Events:
    """The `last` events of every owned user in time, those of one time by their hash.

    Args:
        shards: the artifact.
        splits: which splits count.
        layout: which partitions.
        rows: users and items.
        last: events of a user.
    """
    kind, users, items = integers(max(rows)), [], []
    for partition in layout.owned:
        tables = [
            shards.read_table(
                f"{split}/part-{partition:05d}.parquet", ["user_row", "item_row", "time", "hash"]
            )
            for split in splits
        ]
        user_N, item_N, time_N, hash_N = (
            np.concatenate([table[name].to_numpy() for table in tables])
            for name in ("user_row", "item_row", "time", "hash")
        )
        order = np.lexsort((item_N, hash_N, time_N, user_N))
        user_N, item_N = user_N[order], item_N[order]
        _, size = np.unique(user_N, return_counts=True)
        from_end_N = np.repeat(np.cumsum(size), size) - np.arange(len(user_N))  # 1 is the last
        users.append(torch.from_numpy(user_N[from_end_N <= last]).to(kind))
        items.append(torch.from_numpy(item_N[from_end_N <= last]).to(kind))
    none = torch.empty(0, dtype=kind)
    sizes = tuple(len(part) for part in users)
    one = torch.ones(1).expand(sum(sizes))
    return Events(torch.cat([none, *users]), torch.cat([none, *items]), one, sizes)
