"""Inverted lists of whole vectors (Sivic and Zisserman, ICCV 2003).

Legend: N items, D coordinates, E = D, L lists.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import faiss

from embedmill.pipeline.index import cost
from embedmill.pipeline.index.contract import Floats
from embedmill.pipeline.index.kinds.inverted import Inverted, filled

__all__ = ["IvfFlat"]


class IvfFlat(Inverted):
    """All vectors as they are, of which a search compares those of some lists."""

    @staticmethod
    def _filled(
        item_NE: Floats, centroid_LE: Floats, parameters: Mapping[str, int], seed: int
    ) -> Any:
        lists, wide = centroid_LE.shape

        def make(quantizer: Any) -> Any:
            return faiss.IndexIVFFlat(quantizer, wide, lists, faiss.METRIC_INNER_PRODUCT)

        return filled(make, item_NE, centroid_LE, item_NE)

    @staticmethod
    def estimate(items: int, dim: int, parameters: Mapping[str, int]) -> int:
        """Four bytes a coordinate and eight for the row; centroids."""
        return items * (dim * 4 + 8) + parameters["lists"] * (dim * 4 + 8)

    def _compared(self, scanned: float, dim: int, k: int) -> float:
        """Vectors one after another."""
        return cost.streamed(scanned, dim)
