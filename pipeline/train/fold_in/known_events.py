"""The events that make vectors, in batches of rows with about as many events.

Legend: M events, R rows of a batch, N events of its longest row, D coordinates.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["KnownEvents", "PaddedRows", "merged_pairs", "padded_rows"]

Rows = NDArray[np.int64]
Doubles = NDArray[np.float64]

_NUMBERS = 1 << 19  # of the other side's vectors in a batch, which stays in cache
_MOST_ROWS = 1024


@dataclass(frozen=True)
class KnownEvents:
    """Events of rows that get a vector.

    `own_M` are the numbers of these rows, from 0; `other_M` rows of the other side's table, whose
    vectors are fixed; `weight_M` the weights of the log.
    """

    own_M: Rows
    other_M: Rows
    weight_M: NDArray[Any]


@dataclass(frozen=True)
class PaddedRows:
    """Rows `row_R` with the other side's vectors of their events; padded events have weight 0."""

    row_R: Tensor
    count_R: Tensor
    other_RND: Tensor
    weight_RN: Tensor

    @property
    def present(self) -> Tensor:
        """Which events are no padding."""
        return torch.arange(self.weight_RN.shape[1]) < self.count_R[:, None]


def merged_pairs(events: KnownEvents, weight_M: Doubles, others: int) -> KnownEvents:
    """Each pair once, with the sum of the weights of its events; those of weight 0 are left out.

    Args:
        events: the events.
        weight_M: what each counts, at least 0.
        others: rows of the other side's table.
    """
    key_P, pair_M = np.unique(events.own_M * others + events.other_M, return_inverse=True)
    weight_P = np.bincount(pair_M, weight_M, len(key_P))
    own_P, other_P = np.divmod(key_P[weight_P > 0], others)
    return KnownEvents(own_P, other_P, weight_P[weight_P > 0])


def padded_rows(
    events: KnownEvents, take: Callable[[Rows], Tensor], dim: int
) -> Iterator[PaddedRows]:
    """All rows that have events, in order of the number of these.

    Args:
        events: in any order.
        take: vectors of some rows of the other side's table, float32 [., D].
        dim: D.
    """
    if not len(events.own_M):
        return
    order_M = np.argsort(events.own_M, kind="stable")
    row_U, count_U = np.unique(events.own_M, return_counts=True)
    start_U = torch.from_numpy(np.cumsum(count_U) - count_U)
    distinct, index_M = np.unique(events.other_M[order_M], return_inverse=True)
    other_VD = take(distinct)
    index = torch.from_numpy(index_M)
    weight = torch.from_numpy(events.weight_M[order_M]).float()
    by_count, count = (
        torch.from_numpy(np.argsort(count_U, kind="stable")),
        torch.from_numpy(count_U),
    )
    first = 0
    while first < len(by_count):
        stop = _stop(count[by_count], first, dim)
        some = by_count[first:stop]
        place_RN = torch.arange(int(count[some[-1]]))
        present_RN = place_RN < count[some][:, None]
        at_RN = (start_U[some][:, None] + place_RN).clamp_(max=len(index) - 1)
        other_RND = other_VD[index[at_RN].view(-1)].view(*at_RN.shape, dim)
        weight_RN = torch.where(present_RN, weight[at_RN], 0.0)
        yield PaddedRows(torch.from_numpy(row_U)[some], count[some], other_RND, weight_RN)
        first = stop


def _stop(count_U: Tensor, first: int, dim: int) -> int:
    """One past the last row of the batch that begins at `first`; counts do not fall."""
    stop = min(len(count_U), first + _MOST_ROWS)
    while stop - first > 1 and (stop - first) * int(count_U[stop - 1]) * dim > _NUMBERS:
        stop = first + (stop - first) // 2
    return stop
