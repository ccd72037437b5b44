"""Inverted lists with product quantization (Jegou, Douze and Schmid, PAMI 2011).

Legend: N items, M of them, D coordinates, E padded ones, L lists.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import faiss

from embedmill.pipeline.config import IndexConfig
from embedmill.pipeline.index import cost
from embedmill.pipeline.index.contract import Floats
from embedmill.pipeline.index.kinds.inverted import (
    PER_LIST,
    Inverted,
    check_segments,
    filled,
    sample,
)
from embedmill.pipeline.index.kinds.padding import padded_dim
from embedmill.pipeline.index.kinds.reranking import enough

__all__ = ["CENTROIDS", "IvfPq", "product_codes"]

CENTROIDS = 256
# Items that codes are learned from.
_LEARNED_FROM = 1 << 16


class IvfPq(Inverted):
    """One byte per segment of a vector, in lists of which a search probes some.

    Vectors are padded with zeros to a whole number of coordinates per segment, which
    changes no inner product. A small catalogue gets fewer lists (at least 39 items each),
    and where it has fewer than the 256 items that a codebook needs, it is trained on
    repetitions: every item is then its own centroid.
    """

    spare = True

    @staticmethod
    def plan(items: int, dim: int, config: IndexConfig) -> dict[str, int]:
        """Settle lists, probes and segments.

        Raises:
            ConfigError: more segments than coordinates.
        """
        asked = config.ivfpq
        check_segments("index.ivfpq.segments", asked.segments, dim, "one per two coordinates")
        lists = min(asked.lists or round(4 * math.sqrt(items)), max(1, items // PER_LIST))
        return {
            "lists": max(1, lists),
            "probes": min(asked.probes or -(-lists // 4), lists),
            "segments": asked.segments or -(-dim // 2),
        }

    @classmethod
    def candidates(cls, items: int, dim: int, config: IndexConfig) -> list[dict[str, int]]:
        """A byte a coordinate, then fewer, unless the segments are given."""
        plan = cls.plan(items, dim, config)
        if config.ivfpq.segments:
            return [plan]
        cuts = sorted({-(-dim // part) for part in (1, 2, 4, 8)}, reverse=True)
        return [{**plan, "segments": segments} for segments in cuts]

    @staticmethod
    def _filled(
        item_NE: Floats, centroid_LE: Floats, parameters: Mapping[str, int], seed: int
    ) -> Any:
        return product_codes(item_NE, centroid_LE, parameters["segments"], seed)

    @staticmethod
    def estimate(items: int, dim: int, parameters: Mapping[str, int]) -> int:
        """A byte per segment and eight for the row; centroids of lists and codebooks."""
        wide = padded_dim(dim, parameters["segments"])
        centroids = (parameters["lists"] + CENTROIDS) * wide * 4
        return items * (parameters["segments"] + 8) + centroids

    @staticmethod
    def work(items: int, dim: int, parameters: Mapping[str, int]) -> float:
        """Of the lists, of learning codes, and of encoding every item."""
        learning = min(items, _LEARNED_FROM) * dim * CENTROIDS * 25
        encoding = items * dim * CENTROIDS
        codes = (learning + encoding) * cost.MULTIPLY * 2e-9
        return Inverted.work(items, dim, parameters) + codes

    def _compared(self, scanned: float, dim: int, k: int) -> float:
        """A table for the query, and codes that are looked up in it."""
        segments = self.parameters["segments"]
        return cost.products(CENTROIDS, dim) + cost.looked_up_codes(scanned, segments)

    @staticmethod
    def _unstored(parameters: Mapping[str, int]) -> int:
        return parameters["lists"] * parameters["segments"] * CENTROIDS * 4


def product_codes(item_NE: Floats, centroid_LE: Floats, segments: int, seed: int) -> Any:
    """Lists with a byte a segment of each item's distance to its centroid."""
    lists, wide = centroid_LE.shape

    def make(quantizer: Any) -> Any:
        product = faiss.METRIC_INNER_PRODUCT
        engine = faiss.IndexIVFPQ(quantizer, wide, lists, segments, 8, product)
        engine.pq.cp.seed = seed
        engine.pq.cp.min_points_per_centroid = 1
        return engine

    learned_ME = enough(sample(item_NE, _LEARNED_FROM, seed), CENTROIDS)
    return filled(make, item_NE, centroid_LE, learned_ME)
