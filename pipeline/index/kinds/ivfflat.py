"""Inverted lists of raw vectors (Sivic and Zisserman, ICCV 2003).

Legend: N items, D coordinates, E = D, L lists.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import faiss

from embedmill.pipeline.index import cost
from embedmill.pipeline.index.kinds.inverted import Inverted, InvertedIndex, build_inverted
from embedmill.pipeline.index.searchable import Floats

__all__ = ["IvfFlat", "IvfFlatIndex"]


class IvfFlatIndex(InvertedIndex):
    """Raw vectors in lists."""

    def _scan_us(self, scanned: float, dim: int, k: int) -> float:
        return cost.vector_scan(scanned, dim)


class IvfFlat(Inverted):
    """Raw vectors in lists, of which a search compares those of some lists."""

    index_class = IvfFlatIndex

    def _fill_lists(
        self, item_NE: Floats, centroid_LE: Floats, parameters: Mapping[str, int], seed: int
    ) -> Any:
        lists, dim = centroid_LE.shape

        def make(quantizer: Any) -> Any:
            return faiss.IndexIVFFlat(quantizer, dim, lists, faiss.METRIC_INNER_PRODUCT)

        return build_inverted(make, item_NE, centroid_LE, item_NE)

    def estimate_bytes(self, items: int, dim: int, parameters: Mapping[str, int]) -> int:
        """Four bytes a coordinate and eight for the row; centroids."""
        return items * (dim * 4 + 8) + parameters["lists"] * (dim * 4 + 8)
