"""Exact search: every item is compared."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import faiss

from embedmill.pipeline.config import IndexConfig
from embedmill.pipeline.index import cost
from embedmill.pipeline.index.index_kind import IndexKind
from embedmill.pipeline.index.searchable import FaissIndex, Floats

__all__ = ["Flat", "FlatIndex"]


class FlatIndex(FaissIndex):
    """Raw vectors, all of which a search compares."""

    exact = True

    def cost_us(self, query_BD: Floats, k: int, items: int = 0) -> float:
        """One inner product per item; see `Tunable.cost_us`."""
        return cost.batched_products(items or self.items, query_BD.shape[1])


class Flat(IndexKind):
    """Raw vectors: recall 1, time and bytes in proportion to the number of items."""

    index_class = FlatIndex

    def plan(self, items: int, dim: int, config: IndexConfig) -> dict[str, int]:
        """No parameters."""
        return {}

    def build_faiss(self, item_ND: Floats, parameters: Mapping[str, int], seed: int) -> Any:
        """Store the vectors; see `IndexKind.build`."""
        flat = faiss.IndexFlatIP(item_ND.shape[1])
        flat.add(item_ND)
        return flat

    def estimate_bytes(self, items: int, dim: int, parameters: Mapping[str, int]) -> int:
        """Four bytes a coordinate."""
        return items * dim * 4

    def build_seconds(self, items: int, dim: int, parameters: Mapping[str, int]) -> float:
        """The time of a copy."""
        return items * dim * 1e-9
