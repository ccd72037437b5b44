"""An index that lives on: a base that was built once, what came since, and what is gone.

Items whose vectors are those of the run before stay where they are, in the base. New and
changed ones are in a small index beside it, the delta. Places of the base whose item is gone,
or in the delta by now, are tombstones: a search asks the base for so many answers more and
strikes them out. (FAISS's selectors do the same inside some kinds of index, but not in all.)

Legend: B queries, k answers each, N items, P places of the base, M items of the delta, R rows of
the run before, A answers before the best are taken, L queries that still want some.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from embedmill.pipeline.index.contract import Floats, Index, Rows

__all__ = ["Carried", "Living", "carry_over", "positions"]

# More answers than wanted are asked of the base by its share of tombstones, times this: they
# are not spread evenly.
_SPARE = 1.5


@dataclass(frozen=True)
class Carried:
    """What is left of the base, and what is not in it.

    `position_P` is the position of a place's item among the N live ones by rising row, -1 for
    a tombstone; `delta_M` are the positions of the others, rising. The counts tell where the
    items of the run before and of this one went.
    """

    position_P: Rows
    delta_M: Rows
    kept: int
    changed: int
    new: int
    removed: int

    @functools.cached_property
    def tombstones(self) -> int:
        """Dead places of the base."""
        return int((self.position_P < 0).sum())

    @property
    def share(self) -> float:
        """Delta and tombstones over live items: how far from a new index this is."""
        live = len(self.delta_M) + len(self.position_P) - self.tombstones
        return (len(self.delta_M) + self.tombstones) / max(1, live)

    def counters(self) -> dict[str, int]:
        """For the manifest; `embedmill.schemas.index` has their laws."""
        return {
            "kept": self.kept,
            "changed": self.changed,
            "new": self.new,
            "removed": self.removed,
            "indexed_before": self.kept + self.changed + self.removed,
            "base_places": len(self.position_P),
            "tombstones": self.tombstones,
            "in_base": len(self.position_P) - self.tombstones,
            "in_delta": len(self.delta_M),
        }


def carry_over(row_N: Rows, before_R: Rows, same_R: NDArray[np.bool_], base_P: Rows) -> Carried:
    """Where every item is in an index that is carried over; each is in one place.

    Args:
        row_N: rows of the live items, rising.
        before_R: rows of the items that were live before, rising.
        same_R: which of these are live and have the vector that they had.
        base_P: the row of each place of the base, -1 for tombstones; others each once.
    """
    same_P = np.isin(base_P, before_R[same_R])
    position_P = np.where(same_P, positions(row_N, base_P), -1)
    in_base = np.zeros(len(row_N), bool)
    in_base[position_P[position_P >= 0]] = True
    stayed_R = np.isin(before_R, row_N)
    kept = int((same_R & stayed_R).sum())
    return Carried(
        position_P=position_P,
        delta_M=np.flatnonzero(~in_base),
        kept=kept,
        changed=int(stayed_R.sum()) - kept,
        new=len(row_N) - int(stayed_R.sum()),
        removed=int((~stayed_R).sum()),
    )


def positions(row_N: Rows, row_P: Rows) -> Rows:
    """Where some rows are among others that rise; -1 for those that are not."""
    if not len(row_N):
        return np.full(len(row_P), -1, np.int64)
    found_P = np.minimum(np.searchsorted(row_N, row_P), len(row_N) - 1)
    return np.where(row_N[found_P] == row_P, found_P, -1).astype(np.int64)


@dataclass(frozen=True)
class Living:
    """Base and delta behind one search; answers are positions among the N live items.

    `knob`, `parameters` and `settings` are those of the base; the delta is searched as planned.
    """

    base: Index
    delta: Index | None
    carried: Carried

    @property
    def items(self) -> int:
        """N: live items, each in one place."""
        return len(self.carried.position_P) - self.carried.tombstones + len(self.carried.delta_M)

    @property
    def knob(self) -> str:
        """Of the base."""
        return self.base.knob

    @property
    def parameters(self) -> dict[str, int]:
        """Of the base."""
        return self.base.parameters

    def settings(self) -> list[int]:
        """Of the base."""
        return self.base.settings()

    def search(self, query_BD: Floats, k: int, setting: int = 0) -> tuple[Floats, Rows]:
        """The k best items of each query; as `Index.search`, equal scores by lower position."""
        parts = [self._base(query_BD, k, setting)]
        if self.delta is not None:
            score_Bk, place_Bk = self.delta.search(query_BD, k)
            position_Bk = np.where(place_Bk < 0, -1, self.carried.delta_M[place_Bk])
            parts.append((score_Bk, position_Bk))
        score_BA, position_BA = (np.concatenate(s, axis=1) for s in zip(*parts, strict=True))
        order = np.lexsort((position_BA, -score_BA), axis=1)[:, :k]
        return np.take_along_axis(score_BA, order, 1), np.take_along_axis(position_BA, order, 1)

    def _base(self, query_BD: Floats, k: int, setting: int) -> tuple[Floats, Rows]:
        """The k best live places of the base: asked for more until they are there."""
        places, dead = len(self.carried.position_P), self.carried.tombstones
        score_Bk = np.full((len(query_BD), k), -np.inf, np.float32)
        position_Bk = np.full((len(query_BD), k), -1, np.int64)
        held = min(k, places - dead)
        left, asked = np.arange(len(query_BD)), _asked(k, places, dead)
        while held and len(left):
            score_LA, place_LA = self.base.search(query_BD[left], asked, setting)
            position_LA = np.where(place_LA < 0, -1, self.carried.position_P[place_LA])
            order = np.argsort(position_LA < 0, axis=1, kind="stable")[:, :held]
            position_Lh = np.take_along_axis(position_LA, order, 1)
            score_Bk[left, :held] = np.where(
                position_Lh < 0, -np.inf, np.take_along_axis(score_LA, order, 1)
            )
            position_Bk[left, :held] = position_Lh
            # Whom more tombstones than live places are near asks on, up to the whole base.
            short = (position_Lh < 0).any(axis=1) & (asked < places)
            left, asked = left[short], min(places, 4 * asked)
        return score_Bk, position_Bk


def _asked(k: int, places: int, dead: int) -> int:
    """Answers to ask of so many places, so many of them dead, to be left with k."""
    if not dead:
        return min(k, places)
    return min(places, math.ceil(k * (1 + _SPARE * dead / max(1, places - dead))) + 2)
