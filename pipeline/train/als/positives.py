"""Positive pairs of the rows that a worker owns, grouped by row and cut into slices.

Legend: E events of this worker, M distinct pairs of its rows, L rows that it owns, R rows of a
slice, V distinct rows of the other side that a slice needs, N pairs of the row with most.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from embedmill.pipeline.train.collectives import Group
from embedmill.pipeline.train.data.train_events import Events
from embedmill.pipeline.train.plan import Layout
from embedmill.pipeline.train.tables.embedding import ShardedEmbedding

__all__ = ["Pairs", "Slice", "at_owners_of_items", "pairs_of", "slices"]


@dataclass(frozen=True)
class Pairs:
    """Distinct pairs in order of their local row: row l has `start_L[l] : start_L[l + 1]`.

    `other_M` are rows of the other side's table, `weight_M` sums of the sample weights of a
    pair's events.
    """

    start_L: Tensor
    other_M: Tensor
    weight_M: Tensor

    @property
    def counts(self) -> Tensor:
        """Number of pairs of each row, int64 [L]."""
        return self.start_L.diff()


@dataclass(frozen=True)
class Slice:
    """Rows that are solved for in one step, those with most pairs first.

    Row r has the pairs `start_R[r] : start_R[r + 1]`; `index_M` are their positions in
    `other_V`, the distinct rows of the other side.
    """

    local_R: Tensor
    start_R: Tensor
    other_V: Tensor
    index_M: Tensor
    weight_M: Tensor

    def padded(self, first: int, end: int, longest: int) -> tuple[Tensor, Tensor]:
        """The pairs of the rows from `first` to `end` - 1, padded to `longest` for each row.

        Returns:
            positions in `other_V`, int32 [R, N], and weights [R, N], 0 for padding.
        """
        start_R1, end_R1 = self.start_R[first:end, None], self.start_R[first + 1 : end + 1, None]
        at_RN = start_R1 + torch.arange(longest, device=start_R1.device)
        weight_RN = self.weight_M[at_RN.clamp_(max=len(self.weight_M) - 1)]
        # Beyond a row's last pair are those of another row, or the last pair of all.
        ranks_N = torch.arange(longest, device=start_R1.device)
        weight_RN.masked_fill_(ranks_N >= end_R1 - start_R1, 0.0)
        return self.index_M[at_RN], weight_RN

    def batches(self, floats: int, width: int) -> Iterator[tuple[int, int, int]]:
        """Ranges of rows with pairs: (first row, one past the last, pairs of the longest row).

        Padded to its longest row, a range has at most `floats` numbers, `width` for a pair; a
        single row may have more.
        """
        count_R, first = self.start_R.diff().tolist(), 0
        while first < len(count_R) and count_R[first]:
            longest = count_R[first]
            end = min(len(count_R), first + max(1, floats // (longest * width)))
            while not count_R[end - 1]:
                end -= 1
            yield first, end, longest
            first = end


def at_owners_of_items(events: Events, weight_E: Tensor, layout: Layout, group: Group) -> Events:
    """Send each event to the worker that owns its item, in one all-to-all.

    Args:
        events: of this worker's users.
        weight_E: their sample weights.
        layout: of the items.
        group: the workers.

    Returns:
        the events of this worker's items; their weights are the sample weights.
    """
    owner_E = layout.owner(events.item_E)
    order_E = torch.argsort(owner_E, stable=True)
    send = torch.bincount(owner_E, minlength=group.world).tolist()
    receive = group.exchange_counts(send)
    rows_E2 = torch.stack((events.user_E, events.item_E), 1)[order_E].to(group.device)
    rows_E2 = group.all_to_all(rows_E2, send, receive).cpu()
    weight_E = group.all_to_all(weight_E[order_E].to(group.device), send, receive).cpu()
    return Events(rows_E2[:, 0], rows_E2[:, 1], weight_E, ())


def pairs_of(table: ShardedEmbedding, own_E: Tensor, other_E: Tensor, weight_E: Tensor) -> Pairs:
    """Pairs of this worker's rows of `table`; events of weight 0 or less make none.

    Args:
        table: the side that is solved for.
        own_E: the event's row of that side, owned by this worker.
        other_E: the event's row of the other side.
        weight_E: sample weights of the events.
    """
    positive_E = weight_E > 0
    local_E = table.local_index(own_E[positive_E].to(table.group.device)).cpu()
    # Both rows fit into one number, whose order is that of the local rows.
    key_M, pair_E = torch.unique((local_E << 32) + other_E[positive_E], return_inverse=True)
    weight_M = torch.zeros(len(key_M), dtype=torch.float64)
    weight_M.index_add_(0, pair_E, weight_E[positive_E].double())
    start_L = torch.zeros(len(table.weight) + 1, dtype=torch.int64)
    torch.cumsum(torch.bincount(key_M >> 32, minlength=len(table.weight)), 0, out=start_L[1:])
    return Pairs(start_L, key_M & 0xFFFFFFFF, weight_M.float())


def slices(pairs: Pairs, table: ShardedEmbedding, number: int) -> list[Slice]:
    """Cut the owned rows into `number` slices, the same rows for any number of workers.

    Slice s has the rows whose position in their partition is s modulo `number`. Rows are
    ordered by count, so the slices have about equally many pairs.
    """
    spans = [table.partition_slice(p) for p in table.layout.owned]
    position_L = torch.cat(
        [torch.empty(0, dtype=torch.int64), *(torch.arange(s.stop - s.start) for s in spans)]
    )
    device = table.group.device
    return [
        _slice(pairs, (position_L % number == s).nonzero()[:, 0], device) for s in range(number)
    ]


def _slice(pairs: Pairs, local_R: Tensor, device: torch.device) -> Slice:
    local_R = local_R[pairs.counts[local_R].argsort(descending=True, stable=True)]
    count_R = pairs.counts[local_R]
    start_R = torch.zeros(len(local_R) + 1, dtype=torch.int64)
    torch.cumsum(count_R, 0, out=start_R[1:])
    shift_R = pairs.start_L[local_R] - start_R[:-1]
    at_M = torch.arange(int(start_R[-1])) + shift_R.repeat_interleave(count_R)
    other_V, index_M = torch.unique(pairs.other_M[at_M], return_inverse=True)
    columns = (local_R, start_R, other_V, index_M.int(), pairs.weight_M[at_M])
    return Slice(*(column.to(device) for column in columns))
