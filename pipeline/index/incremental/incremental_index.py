"""Searching an incremental index: base and delta behind one search.

A search asks the base for more answers than are wanted, by its share of tombstones, and removes
those. (FAISS's selectors do the same inside some kinds of index, but not in all.)

Legend: B queries, k answers each, N live items, S slots of the base, M items of the delta, A
answers before the best are taken, U queries that still lack answers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from embedmill.pipeline.index.incremental.base_layout import Layout
from embedmill.pipeline.index.searchable import FaissIndex, Floats, Rows, no_answers
from embedmill.pipeline.index.sharded.sharded_index import ShardedIndex

__all__ = ["Base", "IncrementalIndex"]

Base = FaissIndex | ShardedIndex  # the positions of shards follow each other, and so do their slots

# The surplus of answers by the share of tombstones is raised by this factor, because tombstones
# are not spread evenly.
_SURPLUS = 1.5


@dataclass(frozen=True)
class IncrementalIndex:
    """A `Searchable` over base and delta; answers are positions among the N live items.

    The search parameter is that of the base; the delta is searched as it was planned.
    """

    base: Base
    delta: FaissIndex | None
    layout: Layout

    @property
    def items(self) -> int:
        """N: live items, each in one slot or in the delta."""
        return self.layout.items

    @property
    def search_parameter(self) -> str:
        """That of the base."""
        return self.base.search_parameter

    @property
    def parameters(self) -> dict[str, int]:
        """Those of the base."""
        return self.base.parameters

    def settings(self) -> list[int]:
        """Those of the base."""
        return self.base.settings()

    def search(self, query_BD: Floats, k: int, setting: int = 0) -> tuple[Floats, Rows]:
        """The k best items of each query; see `Searchable.search`."""
        parts = [self._search_base(query_BD, k, setting)]
        if self.delta is not None:
            score_Bk, found_Bk = self.delta.search(query_BD, k)
            position_Bk = np.where(found_Bk < 0, -1, self.layout.delta_M[found_Bk])
            parts.append((score_Bk, position_Bk))
        score_BA, position_BA = (np.concatenate(p, axis=1) for p in zip(*parts, strict=True))
        order = np.lexsort((position_BA, -score_BA), axis=1)[:, :k]
        return np.take_along_axis(score_BA, order, 1), np.take_along_axis(position_BA, order, 1)

    def _search_base(self, query_BD: Floats, k: int, setting: int) -> tuple[Floats, Rows]:
        """The k best live slots of the base: ask for more answers until there are k."""
        slots, position_S = len(self.layout.position_S), self.layout.position_S
        score_Bk, position_Bk = no_answers(len(query_BD), k)
        live_k = min(k, self.layout.in_base)
        open_U, width = np.arange(len(query_BD)), _width(k, slots, self.layout.tombstones)
        while live_k and len(open_U):
            score_UA, slot_UA = self.base.search(query_BD[open_U], width, setting)
            position_UA = np.where(slot_UA < 0, -1, position_S[slot_UA])
            order = np.argsort(position_UA < 0, axis=1, kind="stable")[:, :live_k]
            position_Uk = np.take_along_axis(position_UA, order, 1)
            score_Bk[open_U, :live_k] = np.where(
                position_Uk < 0, -np.inf, np.take_along_axis(score_UA, order, 1)
            )
            position_Bk[open_U, :live_k] = position_Uk
            # Where too many of the answers are tombstones, ask again, up to the whole base.
            lacking_U = (position_Uk < 0).any(axis=1) & (width < slots)
            open_U, width = open_U[lacking_U], min(slots, 4 * width)
        return score_Bk, position_Bk


def _width(k: int, slots: int, tombstones: int) -> int:
    """Answers to ask of the base so that most likely k of them are live."""
    if not tombstones:
        return min(k, slots)
    return min(slots, math.ceil(k * (1 + _SURPLUS * tombstones / max(1, slots - tombstones))) + 2)
