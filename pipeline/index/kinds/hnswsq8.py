"""A navigable graph whose vectors have a byte a coordinate.

Legend: N items, D coordinates.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

import faiss

from pipeline.index.contract import Floats
from pipeline.index.kinds.hnsw import Hnsw, link_bytes, linked

__all__ = ["HnswSq8"]


class HnswSq8(Hnsw):
    """Links made over the raw vectors, walked over codes: a quarter of their bytes."""

    spare = True

    @classmethod
    def build(cls, item_ND: Floats, parameters: Mapping[str, int], seed: int) -> Self:
        """Link the raw vectors, then store their codes."""
        engine = faiss.IndexHNSWSQ(
            item_ND.shape[1],
            faiss.ScalarQuantizer.QT_8bit,  # type: ignore[arg-type]
            parameters["m"],
            faiss.METRIC_INNER_PRODUCT,
        )
        storage = faiss.downcast_index(engine.storage)
        storage.train(item_ND)
        storage.add(item_ND)
        graph = linked(item_ND, parameters)  # named: its links go with it
        engine.hnsw = graph.hnsw
        engine.ntotal, engine.is_trained = len(item_ND), True
        return cls(engine, parameters)

    @staticmethod
    def estimate(items: int, dim: int, parameters: Mapping[str, int]) -> int:
        """A byte a coordinate, ranges, and links as of `Hnsw`."""
        return round(items * (dim + link_bytes(parameters)) + dim * 8)

    def _bytes(self) -> int:
        return int(self.engine.d)
