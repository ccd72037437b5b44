"""Inverted lists of scalar codes: a byte per coordinate.

Legend: N items, D coordinates, E = D, L lists.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import faiss

from embedmill.pipeline.index import cost
from embedmill.pipeline.index.kinds.inverted import Inverted, InvertedIndex, build_inverted
from embedmill.pipeline.index.searchable import Floats

__all__ = ["IvfSq8", "IvfSq8Index"]


class IvfSq8Index(InvertedIndex):
    """Scalar codes in lists, decoded as they are compared."""

    def _scan_us(self, scanned: float, dim: int, k: int) -> float:
        return cost.sq8_scan(scanned, dim)


class IvfSq8(Inverted):
    """A byte per coordinate, between its least and its greatest value over all items."""

    index_class = IvfSq8Index

    def _fill_lists(
        self, item_NE: Floats, centroid_LE: Floats, parameters: Mapping[str, int], seed: int
    ) -> Any:
        lists, dim = centroid_LE.shape
        eight_bits, product = faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT

        def make(quantizer: Any) -> Any:
            # Not of residuals: their ranges differ from list to list.
            return faiss.IndexIVFScalarQuantizer(quantizer, dim, lists, eight_bits, product, False)

        return build_inverted(make, item_NE, centroid_LE, item_NE)

    def estimate_bytes(self, items: int, dim: int, parameters: Mapping[str, int]) -> int:
        """A byte a coordinate and eight for the row; centroids and ranges."""
        return items * (dim + 8) + parameters["lists"] * (dim * 4 + 8) + dim * 8
