"""Inverted lists with product quantization (Jegou, Douze and Schmid, PAMI 2011).

Legend: N items, M training items, D coordinates, E coordinates after padding, L lists.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import faiss

from embedmill.pipeline.config import IndexConfig
from embedmill.pipeline.index import cost
from embedmill.pipeline.index.kinds.inverted import (
    MIN_ITEMS_PER_LIST,
    Inverted,
    InvertedIndex,
    build_inverted,
    check_segments,
    sample_rows,
)
from embedmill.pipeline.index.kinds.padding import padded_dim
from embedmill.pipeline.index.kinds.reranking import tiled
from embedmill.pipeline.index.searchable import Floats

__all__ = ["CENTROIDS", "IvfPq", "IvfPqIndex"]

# Centroids of a segment: one for each value of a byte.
CENTROIDS = 256
# Items that codes are trained with.
_TRAINING_ITEMS = 1 << 16


class IvfPqIndex(InvertedIndex):
    """Product codes in lists."""

    def _scan_us(self, scanned: float, dim: int, k: int) -> float:
        """The lookup table of a query, and the codes that are looked up in it."""
        segments = self.parameters["segments"]
        return cost.batched_products(CENTROIDS, dim) + cost.pq8_scan(scanned, segments)


class IvfPq(Inverted):
    """One byte per segment of a vector, in lists of which a search probes some.

    Vectors are padded with zeros to a whole number of coordinates per segment, which
    changes no inner product. A small catalogue gets fewer lists (at least 39 items each),
    and where it has fewer than the 256 items that a codebook needs, it is trained on
    repetitions: every item is then its own centroid.
    """

    index_class: type[InvertedIndex] = IvfPqIndex
    last_resort = True

    def plan(self, items: int, dim: int, config: IndexConfig) -> dict[str, int]:
        """Lists, probes and segments.

        Raises:
            ConfigError: more segments than coordinates.
        """
        given = config.ivfpq
        check_segments("index.ivfpq.segments", given.segments, dim, "one per two coordinates")
        lists = min(given.lists or round(4 * math.sqrt(items)), max(1, items // MIN_ITEMS_PER_LIST))
        return {
            "lists": max(1, lists),
            "probes": min(given.probes or -(-lists // 4), lists),
            "segments": given.segments or -(-dim // 2),
        }

    def candidates(self, items: int, dim: int, config: IndexConfig) -> list[dict[str, int]]:
        """A byte a coordinate, then fewer, unless the segments are given."""
        plan = self.plan(items, dim, config)
        if config.ivfpq.segments:
            return [plan]
        counts = sorted({-(-dim // width) for width in (1, 2, 4, 8)}, reverse=True)
        return [{**plan, "segments": segments} for segments in counts]

    def _fill_lists(
        self, item_NE: Floats, centroid_LE: Floats, parameters: Mapping[str, int], seed: int
    ) -> Any:
        lists, dim = centroid_LE.shape

        def make(quantizer: Any) -> Any:
            segments, product = parameters["segments"], faiss.METRIC_INNER_PRODUCT
            ivf = faiss.IndexIVFPQ(quantizer, dim, lists, segments, 8, product)
            ivf.pq.cp.seed = seed
            ivf.pq.cp.min_points_per_centroid = 1
            return ivf

        training_ME = tiled(sample_rows(item_NE, _TRAINING_ITEMS, seed), CENTROIDS)
        return build_inverted(make, item_NE, centroid_LE, training_ME)

    def estimate_bytes(self, items: int, dim: int, parameters: Mapping[str, int]) -> int:
        """A byte per segment and eight for the row; centroids of lists and codebooks."""
        dim = padded_dim(dim, parameters["segments"])
        centroids = (parameters["lists"] + CENTROIDS) * dim * 4
        return items * (parameters["segments"] + 8) + centroids

    def build_seconds(self, items: int, dim: int, parameters: Mapping[str, int]) -> float:
        """The lists, training the codes, and encoding every item."""
        training = min(items, _TRAINING_ITEMS) * dim * CENTROIDS * 25
        encoding = items * dim * CENTROIDS
        codes = (training + encoding) * cost.MULTIPLY_ADD_NS * 2e-9
        return super().build_seconds(items, dim, parameters) + codes

    def unstored_bytes(self, parameters: Mapping[str, int]) -> int:
        """A table by list, segment and centroid."""
        return parameters["lists"] * parameters["segments"] * CENTROIDS * 4
