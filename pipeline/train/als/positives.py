"""Positive pairs of the rows that a worker owns, laid out for solving.

Legend: E events here, M distinct pairs here, L rows held here, R rows of a slice, V distinct
rows of the other side that a slice needs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from embedmill.pipeline.train.collectives import Group
from embedmill.pipeline.train.data.batches import Events
from embedmill.pipeline.train.plan import Layout
from embedmill.pipeline.train.tables.embedding import ShardedEmbedding

__all__ = ["Pairs", "Slice", "at_owners_of_items", "pairs_of", "slices"]


@dataclass(frozen=True)
class Pairs:
    """Distinct pairs by rising local row: row l has `start_L[l] : start_L[l + 1]`.

    `other_M` are rows of the other side's table, `weight_M` what the events of a pair come to.
    """

    start_L: Tensor
    other_M: Tensor
    weight_M: Tensor

    @property
    def counts(self) -> Tensor:
        """Pairs of each row held here, int64 [L]."""
        return self.start_L.diff()


@dataclass(frozen=True)
class Slice:
    """Rows that are solved for in one step, those with most pairs first.

    Row r has `start_R[r] : start_R[r + 1]` of `index_M`, which points into `other_V`.
    """

    local_R: Tensor
    start_R: Tensor
    other_V: Tensor
    index_M: Tensor
    weight_M: Tensor

    def padded(self, first: int, end: int, longest: int) -> tuple[Tensor, Tensor]:
        """The pairs of rows first .. end - 1, each row's padded to the longest.

        Returns:
            where they stand in `other_V`, int32 [R, N], and their weights [R, N], 0 for padding.
        """
        start_R1, end_R1 = self.start_R[first:end, None], self.start_R[first + 1 : end + 1, None]
        at_RN = start_R1 + torch.arange(longest, device=start_R1.device)
        weight_RN = self.weight_M[at_RN.clamp_(max=len(self.weight_M) - 1)]
        # A place beyond the row's last is another row's, or the last of all.
        ranks_N = torch.arange(longest, device=start_R1.device)
        weight_RN.masked_fill_(ranks_N >= end_R1 - start_R1, 0.0)
        return self.index_M[at_RN], weight_RN

    def batches(self, floats: int, width: int) -> Iterator[tuple[int, int, int]]:
        """Runs of rows with pairs, padded to the longest: (first row, end, pairs of the longest).

        A run takes at most `floats` numbers of `width` a pair, or is a single row.
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
    """Each event at the worker that owns its item: one all-to-all."""
    owner_E = layout.owner(events.item_E)
    order_E = torch.argsort(owner_E, stable=True)
    give = torch.bincount(owner_E, minlength=group.world).tolist()
    take = group.swap_counts(give)
    rows_E2 = torch.stack((events.user_E, events.item_E), 1)[order_E].to(group.device)
    rows_E2 = group.swap(rows_E2, give, take).cpu()
    weight_E = group.swap(weight_E[order_E].to(group.device), give, take).cpu()
    return Events(rows_E2[:, 0], rows_E2[:, 1], weight_E, ())


def pairs_of(table: ShardedEmbedding, own_E: Tensor, other_E: Tensor, weight_E: Tensor) -> Pairs:
    """Pairs of the rows of `table` that are held here; events of no weight are none.

    Args:
        table: the side that is solved for.
        own_E: its row in each event, held here.
        other_E: the other side's row.
        weight_E: how much each event counts.
    """
    counts_E = weight_E > 0
    local_E = table.local(own_E[counts_E].to(table.group.device)).cpu()
    # Both fit into one number, and the order by it is that by row.
    key_M, pair_E = torch.unique((local_E << 32) + other_E[counts_E], return_inverse=True)
    weight_M = torch.zeros(len(key_M), dtype=torch.float64)
    weight_M.index_add_(0, pair_E, weight_E[counts_E].double())
    start_L = torch.zeros(len(table.weight) + 1, dtype=torch.int64)
    torch.cumsum(torch.bincount(key_M >> 32, minlength=len(table.weight)), 0, out=start_L[1:])
    return Pairs(start_L, key_M & 0xFFFFFFFF, weight_M.float())


def slices(pairs: Pairs, table: ShardedEmbedding, number: int) -> list[Slice]:
    """The held rows in `number` slices, which are the same rows for any number of workers.

    Slice s has the rows whose place in their partition is s modulo `number`: rows are ordered
    by count, so the slices weigh alike.
    """
    spans = [table.span(p) for p in table.layout.owned]
    place_L = torch.cat(
        [torch.empty(0, dtype=torch.int64), *(torch.arange(s.stop - s.start) for s in spans)]
    )
    device = table.group.device
    return [_slice(pairs, (place_L % number == s).nonzero()[:, 0], device) for s in range(number)]


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
