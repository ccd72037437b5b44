"""Inverted lists of vectors with a byte a coordinate.

Legend: N items, D coordinates, E = D, L lists.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import faiss

from embedmill.pipeline.index import cost
from embedmill.pipeline.index.contract import Floats
from embedmill.pipeline.index.kinds.inverted import Inverted, filled

__all__ = ["IvfSq8"]


class IvfSq8(Inverted):
    """A byte per coordinate, between the least and the greatest value that it takes."""

    @staticmethod
    def _filled(
        item_NE: Floats, centroid_LE: Floats, parameters: Mapping[str, int], seed: int
    ) -> Any:
        lists, wide = centroid_LE.shape
        eight, product = faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT

        def make(quantizer: Any) -> Any:
            # Not of residuals: these have other ranges in every list.
            return faiss.IndexIVFScalarQuantizer(quantizer, wide, lists, eight, product, False)

        return filled(make, item_NE, centroid_LE, item_NE)

    @staticmethod
    def estimate(items: int, dim: int, parameters: Mapping[str, int]) -> int:
        """A byte a coordinate and eight for the row; centroids and ranges."""
        return items * (dim + 8) + parameters["lists"] * (dim * 4 + 8) + dim * 8

    def _compared(self, scanned: float, dim: int, k: int) -> float:
        """Codes that are decoded as they are compared."""
        return cost.decoded(scanned, dim)
