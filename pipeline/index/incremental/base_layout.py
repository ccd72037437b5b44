"""Where each item of an incremental index is: in a slot of the base, or in the delta.

Legend: N live items, S slots of the base, M items of the delta, R live rows of the previous run.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from embedmill.pipeline.index.searchable import Rows

__all__ = ["Layout", "plan_layout", "positions_of"]


@dataclass(frozen=True)
class Layout:
    """Which item each slot of the base holds, and which items are in the delta.

    `position_S` has the position of a slot's item among the N live ones by rising row, -1 for a
    tombstone; `delta_M` has the positions of the others, rising. `kept`, `changed` and `removed`
    count the items of the previous run, `kept`, `changed` and `new` those of this one.
    """

    position_S: Rows
    delta_M: Rows
    kept: int
    changed: int
    new: int
    removed: int

    @functools.cached_property
    def tombstones(self) -> int:
        """Slots of the base without a live item."""
        return int((self.position_S < 0).sum())

    @functools.cached_property
    def in_base(self) -> int:
        """Slots of the base with a live item."""
        return len(self.position_S) - self.tombstones

    @property
    def items(self) -> int:
        """N."""
        return self.in_base + len(self.delta_M)

    @property
    def overhead(self) -> float:
        """Items of the delta and tombstones, as a share of the live items."""
        return (len(self.delta_M) + self.tombstones) / max(1, self.items)

    def counters(self) -> dict[str, int]:
        """For the manifest; the stage's contract has their conservation laws."""
        return {
            "kept": self.kept,
            "changed": self.changed,
            "new": self.new,
            "removed": self.removed,
            "indexed_before": self.kept + self.changed + self.removed,
            "base_slots": len(self.position_S),
            "tombstones": self.tombstones,
            "in_base": self.in_base,
            "in_delta": len(self.delta_M),
        }


def plan_layout(row_N: Rows, before_R: Rows, same_R: NDArray[np.bool_], row_S: Rows) -> Layout:
    """Place each live item either in its old slot or in the delta.

    An item keeps its slot if its vector has not changed since the previous run; one that is in
    the delta of the previous run stays in the delta.

    Args:
        row_N: rows of the live items, rising.
        before_R: rows of the items that were live in the previous run, rising.
        same_R: bool [R], which of these are live with the same vector.
        row_S: the row of each slot of the previous base, -1 for tombstones; no row comes twice.
    """
    same_S = np.isin(row_S, before_R[same_R])
    position_S = np.where(same_S, positions_of(row_N, row_S), -1)
    in_base_N = np.zeros(len(row_N), bool)
    in_base_N[position_S[position_S >= 0]] = True
    stayed_R = np.isin(before_R, row_N)
    kept = int((same_R & stayed_R).sum())
    return Layout(
        position_S=position_S,
        delta_M=np.flatnonzero(~in_base_N),
        kept=kept,
        changed=int(stayed_R.sum()) - kept,
        new=len(row_N) - int(stayed_R.sum()),
        removed=int((~stayed_R).sum()),
    )


def positions_of(row_N: Rows, row_S: Rows) -> Rows:
    """The position of each of `row_S` in the rising `row_N`; -1 where it is not in it."""
    if not len(row_N):
        return np.full(len(row_S), -1, np.int64)
    nearest_S = np.minimum(np.searchsorted(row_N, row_S), len(row_N) - 1)
    return np.where(row_N[nearest_S] == row_S, nearest_S, -1).astype(np.int64)
