"""Exact search: every item is compared."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

import faiss

from embedmill.pipeline.config import IndexConfig
from embedmill.pipeline.index import cost
from embedmill.pipeline.index.contract import Floats, Index

__all__ = ["Flat"]


class Flat(Index):
    """All vectors as they are; recall 1, time and bytes in proportion to the catalogue."""

    exact = True

    @staticmethod
    def plan(items: int, dim: int, config: IndexConfig) -> dict[str, int]:
        """Nothing to decide."""
        return {}

    @classmethod
    def build(cls, item_ND: Floats, parameters: Mapping[str, int], seed: int) -> Self:
        """Store the vectors."""
        engine = faiss.IndexFlatIP(item_ND.shape[1])
        engine.add(item_ND)
        return cls(engine, parameters)

    @staticmethod
    def estimate(items: int, dim: int, parameters: Mapping[str, int]) -> int:
        """Four bytes a coordinate."""
        return items * dim * 4

    @staticmethod
    def work(items: int, dim: int, parameters: Mapping[str, int]) -> float:
        """A copy."""
        return items * dim * 1e-9

    def microseconds(self, query_BD: Floats, k: int, items: int = 0) -> float:
        """Every item."""
        return cost.products(items or self.engine.ntotal, query_BD.shape[1])
