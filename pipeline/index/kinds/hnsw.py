"""A navigable graph over the items (Malkov and Yashunin, arXiv 1603.09320).

Legend: B queries, k answers each, N items, D coordinates.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import faiss

from pipeline.config import IndexConfig
from pipeline.index import cost
from pipeline.index.contract import Floats, Index, Rows, threads

__all__ = ["Hnsw"]

# To be asked for a quarter of the catalogue is to be asked for a look at all of it: a walk
# would be slower, and would miss items that no link leads to.
_LARGE = 4
_WIDEST = 4096


class Hnsw(Index):
    """Links from each item to those of largest inner product; a search walks them.

    The inner product is no distance. Links by the distance of items with one coordinate more,
    which makes all lengths equal (Bachrach et al., RecSys 2014), were tried twice and found
    less on all but one set; see DECISIONS.md. Where lengths are so uneven that walks end
    among the long items, kinds with lists keep the promise.
    """

    knob = "ef_search"

    @staticmethod
    def plan(items: int, dim: int, config: IndexConfig) -> dict[str, int]:
        """As configured; a node cannot have more links than there are items."""
        return {
            "m": max(2, min(config.hnsw.m, items)),
            "ef_construction": config.hnsw.ef_construction,
            "ef_search": config.hnsw.ef_search,
        }

    @classmethod
    def build(cls, item_ND: Floats, parameters: Mapping[str, int], seed: int) -> Self:
        """Link the items, one after another.

        On one thread: FAISS links in parallel without an order, and gives other bytes each
        time (seen with 30,000 items on two threads).
        """
        return cls(linked(item_ND, parameters), parameters)

    @staticmethod
    def estimate(items: int, dim: int, parameters: Mapping[str, int]) -> int:
        """Vectors, 2 m links on the ground level and m on each above (one item in m)."""
        return round(items * (dim * 4 + link_bytes(parameters)))

    @staticmethod
    def work(items: int, dim: int, parameters: Mapping[str, int]) -> float:
        """About as many comparisons an item as links are kept open, times a few."""
        compared = parameters["ef_construction"] * (6 + parameters["m"] / 8)
        return items * cost.walked(compared, dim, items * dim * 4) * 1e-6

    def limits(self) -> tuple[int, int]:
        """Ten to 4,096, or to a quarter of the items."""
        return 10, max(10, min(_WIDEST, self.engine.ntotal // _LARGE))

    def microseconds(self, query_BD: Floats, k: int, items: int = 0) -> float:
        """Comparisons along the walk: with the fourth root of the items at equal recall.

        (The logarithm of the paper, section 4.2, holds for a walk of equal width, and among more
        items it must be wider. The root is an assumption.)
        """
        held = self.engine.ntotal
        compared = self._compared(query_BD, k) * ((items or held) / held) ** 0.25
        return cost.walked(compared, query_BD.shape[1], (items or held) * self._bytes())

    def _bytes(self) -> int:
        """Of an item's vector as stored."""
        return int(self.engine.d) * 4

    def _compared(self, query_BD: Floats, k: int) -> float:
        """Items that a query compares on average."""
        if k * _LARGE >= self.engine.ntotal:
            return float(self.engine.ntotal)
        stats = faiss.cvar.hnsw_stats  # type: ignore[attr-defined]
        stats.reset()
        self.search(query_BD, k)
        return float(stats.ndis) / max(1, len(query_BD))

    def _search(self, query_BD: Floats, k: int, setting: int) -> tuple[Floats, Rows]:
        if k * _LARGE >= self.engine.ntotal:
            score_Bk, row_Bk = faiss.downcast_index(self.engine.storage).search(query_BD, k)
            return score_Bk, row_Bk
        effort = max(self._for_more(setting or self.parameters["ef_search"], k), k)
        score_Bk, row_Bk = self.engine.search(
            query_BD,
            k,
            params=faiss.SearchParametersHNSW(efSearch=effort),  # type: ignore[attr-defined]
        )
        return score_Bk, row_Bk


def linked(item_ND: Floats, parameters: Mapping[str, int]) -> Any:
    """A FAISS graph over the items, on one thread."""
    engine = faiss.IndexHNSWFlat(item_ND.shape[1], parameters["m"], faiss.METRIC_INNER_PRODUCT)
    engine.hnsw.efConstruction = parameters["ef_construction"]
    with threads(1):
        engine.add(item_ND)
    return engine


def link_bytes(parameters: Mapping[str, int]) -> float:
    """Bytes of an item's links on all levels, of its level and of where they begin."""
    m = parameters["m"]
    return (2 * m + m / (m - 1)) * 4 + 12
