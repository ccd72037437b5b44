"""A navigable graph over the items (Malkov and Yashunin, arXiv 1603.09320)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

import faiss

from pipeline.config import IndexConfig
from pipeline.index.contract import Floats, Index, Rows, threads

__all__ = ["Hnsw"]

# To be asked for a quarter of the catalogue is to be asked for a look at all of it: a walk
# would be slower, and would miss items that no link leads to.
_LARGE = 4


class Hnsw(Index):
    """Links from each item to those of largest inner product; a search walks them.

    The inner product is no distance, and the usual cure (one coordinate more that makes all
    lengths equal, Bachrach et al., RecSys 2014) was measured to be worse than none: with
    20,000 vectors of 32 coordinates whose lengths vary (log-normal, sigma 0.7), recall@10 at
    ef_search 128 was .15 with it and 1.00 without; with biases .96 and .998; the same with
    unit vectors.
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
        engine = faiss.IndexHNSWFlat(item_ND.shape[1], parameters["m"], faiss.METRIC_INNER_PRODUCT)
        engine.hnsw.efConstruction = parameters["ef_construction"]
        engine.hnsw.efSearch = parameters["ef_search"]
        with threads(1):
            engine.add(item_ND)
        return cls(engine, parameters)

    @staticmethod
    def estimate(items: int, dim: int, parameters: Mapping[str, int]) -> int:
        """Vectors, 2 m links on the ground level and m on each above (one item in m)."""
        m = parameters["m"]
        links = 2 * m + m / (m - 1)
        return round(items * (dim * 4 + links * 4 + 12))

    def settings(self) -> list[int]:
        """Powers of two around what was planned."""
        chosen = self.parameters["ef_search"]
        return sorted({16, 32, 64, 128, 256, chosen})

    def _search(self, query_BD: Floats, k: int, setting: int) -> tuple[Floats, Rows]:
        if k * _LARGE >= self.engine.ntotal:
            score_Bk, row_Bk = faiss.downcast_index(self.engine.storage).search(query_BD, k)
            return score_Bk, row_Bk
        effort = max(setting or self.parameters["ef_search"], k)
        score_Bk, row_Bk = self.engine.search(
            query_BD,
            k,
            params=faiss.SearchParametersHNSW(efSearch=effort),  # type: ignore[attr-defined]
        )
        return score_Bk, row_Bk
