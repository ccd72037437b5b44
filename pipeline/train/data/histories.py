"""User vectors of a model of item pairs: the mean of the vectors of the user's items.

Such a model has a table of centers and one of contexts, both by item, and none of users.

Legend: B users, M events of these users, N events of one partition, V distinct items,
D columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from embedmill.pipeline.train.data.train_events import Events, integer_type
from embedmill.pipeline.train.plan import Layout, rows_in
from embedmill.pipeline.train.tables.embedding import ShardedEmbedding
from embedmill.pipeline.views.shards import Shards

__all__ = ["Histories", "read_latest_events"]

_EVENTS = 1 << 18  # events whose items are fetched together


@dataclass(frozen=True)
class Histories:
    """The events whose items make the users' vectors; `users` counts all users."""

    events: Events
    users: int
    layout: Layout

    def user_vectors(self, user_B: Tensor, items: ShardedEmbedding) -> Tensor:
        """Vectors of some owned users; a collective.

        Args:
            user_B: rows of the users, ascending.
            items: table of the items.

        Returns:
            float [B, D]: the mean of the normalized item vectors; 0 for a user without events.
        """
        positions, item_rows = [user_B[:0]], [user_B[:0]]
        for partition in self.events.partitions() if len(user_B) else ():
            user_N = partition.user_E.long()
            position_N = torch.searchsorted(user_B, user_N).clamp_(max=len(user_B) - 1)
            wanted_N = user_B[position_N] == user_N
            positions.append(position_N[wanted_N])
            item_rows.append(partition.item_E[wanted_N].long())
        return _mean_vectors(torch.cat(positions), torch.cat(item_rows), len(user_B), items)

    def partition_vectors(self, partition: int, items: ShardedEmbedding) -> Tensor:
        """Vectors of a partition's users, float [n, D]; n = 0 if not owned; a collective."""
        if partition not in self.layout.owned:
            nothing = torch.empty(0, dtype=torch.int64)
            return _mean_vectors(nothing, nothing, 0, items)
        events = list(self.events.partitions())[self.layout.owned.index(partition)]
        size = rows_in(partition, self.layout.partitions, self.users)
        position_N = events.user_E.long() // self.layout.partitions
        return _mean_vectors(position_N, events.item_E.long(), size, items)


def _mean_vectors(position_M: Tensor, item_M: Tensor, size: int, items: ShardedEmbedding) -> Tensor:
    """Means of normalized item vectors by the position of their user, float [size, D]."""
    device = items.group.device
    sum_BD = torch.zeros((size, items.width), device=device)
    # Every worker goes through as many rounds: each round is a collective.
    for at in range(items.group.max(-(-len(item_M) // _EVENTS))):
        chunk = slice(at * _EVENTS, (at + 1) * _EVENTS)
        row_V, index = torch.unique(item_M[chunk].to(device), return_inverse=True)
        unit_VD = functional.normalize(items.fetch(row_V)[0])
        sum_BD.index_add_(0, position_M[chunk].to(device), unit_VD[index])
    count_B = torch.bincount(position_M, minlength=size).clamp_(min=1).to(device)
    return sum_BD / count_B[:, None]


def read_latest_events(
    shards: Shards, splits: Sequence[str], layout: Layout, rows: tuple[int, int], last: int
) -> Events:
    """The `last` events of every owned user by time; of equal times, the greater hash is later.

    Args:
        shards: the artifact.
        splits: names of the splits to read.
        layout: which partitions this worker owns.
        rows: number of users and of items.
        last: how many events of a user to keep.
    """
    dtype, users, items = integer_type(max(rows)), [], []
    columns = ["user_row", "item_row", "time", "hash"]
    for partition in layout.owned:
        user_N, item_N, time_N, hash_N = shards.concatenated(splits, [partition], columns)
        order = np.lexsort((item_N, hash_N, time_N, user_N))
        user_N, item_N = user_N[order], item_N[order]
        _, size = np.unique(user_N, return_counts=True)
        from_end_N = np.repeat(np.cumsum(size), size) - np.arange(len(user_N))  # 1: the latest
        users.append(torch.from_numpy(user_N[from_end_N <= last]).to(dtype))
        items.append(torch.from_numpy(item_N[from_end_N <= last]).to(dtype))
    none = torch.empty(0, dtype=dtype)
    sizes = tuple(len(user_N) for user_N in users)
    one = torch.ones(1).expand(sum(sizes))
    return Events(torch.cat([none, *users]), torch.cat([none, *items]), one, sizes)
