"""A navigable graph over the items (Malkov and Yashunin, arXiv 1603.09320)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

import faiss
import numpy as np

from pipeline.config import IndexConfig
from pipeline.index.contract import Floats, Index, Rows, threads

__all__ = ["Hnsw"]


class Hnsw(Index):
    """Links from each item to its nearest; a search walks them.

    An inner product is no distance, and a graph built on it strands long vectors' poor
    neighbours. Each item therefore gets one coordinate more, sqrt(M^2 - |v|^2) with M the
    greatest length, and a query a zero: the nearest by Euclidean distance is then the
    greatest inner product (Bachrach et al., RecSys 2014, section 3). For unit vectors the
    coordinate is zero and nothing changes.
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
        engine = faiss.IndexHNSWFlat(item_ND.shape[1] + 1, parameters["m"], faiss.METRIC_L2)
        engine.hnsw.efConstruction = parameters["ef_construction"]
        engine.hnsw.efSearch = parameters["ef_search"]
        square_N = np.square(item_ND, dtype=np.float64).sum(axis=1)
        rest_N = np.sqrt(np.maximum(square_N.max(initial=0) - square_N, 0))
        with threads(1):
            engine.add(np.column_stack((item_ND, rest_N)).astype(np.float32))
        return cls(engine, parameters)

    @staticmethod
    def estimate(items: int, dim: int, parameters: Mapping[str, int]) -> int:
        """Vectors, 2 m links on the ground level and m on each above (one item in m)."""
        m = parameters["m"]
        links = 2 * m + m / (m - 1)
        return round(items * ((dim + 1) * 4 + links * 4 + 12))

    def settings(self) -> list[int]:
        """Powers of two around what was planned."""
        chosen = self.parameters["ef_search"]
        return sorted({16, 32, 64, 128, 256, chosen})

    def _search(self, query_BD: Floats, k: int, setting: int) -> tuple[Floats, Rows]:
        effort = max(setting or self.parameters["ef_search"], k)
        query_BE = np.column_stack((query_BD, np.zeros(len(query_BD), np.float32)))
        distance_Bk, row_Bk = self.engine.search(
            query_BE,
            k,
            params=faiss.SearchParametersHNSW(efSearch=effort),  # type: ignore[attr-defined]
        )
        return self._inner(query_BD, distance_Bk), row_Bk

    def _inner(self, query_BD: Floats, distance_Bk: Floats) -> Floats:
        """Inner products from |q - v|^2 = |q|^2 + M^2 - 2 <q, v>."""
        length_B1 = np.square(query_BD, dtype=np.float64).sum(axis=1, keepdims=True)
        first = self.engine.storage.reconstruct(0).astype(np.float64)
        inner = (length_B1 + np.square(first).sum() - distance_Bk) / 2
        return inner.astype(np.float32)  # type: ignore[no-any-return]
