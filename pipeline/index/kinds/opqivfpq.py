"""Inverted lists of product codes after a trained rotation, the best of them reranked.

Optimized product quantization (Ge, He, Ke and Sun, CVPR 2013).

Legend: N items, M training items, D coordinates, E coordinates after padding, L lists.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import faiss
import numpy as np

from embedmill.pipeline.config import IndexConfig
from embedmill.pipeline.index import cost
from embedmill.pipeline.index.kinds.fastscan import plan_reranked_lists
from embedmill.pipeline.index.kinds.inverted import sample_rows
from embedmill.pipeline.index.kinds.ivfpq import CENTROIDS, IvfPq, IvfPqIndex
from embedmill.pipeline.index.kinds.padding import padded_dim
from embedmill.pipeline.index.kinds.reranking import (
    keep_alive,
    reranking_bytes,
    tiled,
    with_reranking,
)
from embedmill.pipeline.index.searchable import Floats

__all__ = ["OpqIvfPq", "OpqIvfPqIndex"]

# Training of the rotation: items and rounds.
_TRAINING_ITEMS = 16_384
_ROUNDS = 6


class OpqIvfPqIndex(IvfPqIndex):
    """Product codes of rotated vectors in lists, and reranking."""

    def variants(self) -> list[dict[str, int]]:
        """How many candidates per answer are reranked."""
        if not self.parameters["refine_bits"]:
            return [{}]
        return [{"refine": times} for times in (3, 6, 12, 24)]

    def _scan_us(self, scanned: float, dim: int, k: int) -> float:
        """The rotation, the lookup table of a query, its codes, and reranking."""
        segments, refine = self.parameters["segments"], self.parameters["refine"]
        tables = cost.batched_products(dim + CENTROIDS, dim) + cost.pq8_scan(scanned, segments)
        return tables + cost.reranked(k * refine, dim, self.parameters["refine_bits"])


class OpqIvfPq(IvfPq):
    """A byte per segment of the rotated vector, then reranking as of `FastScan`."""

    index_class = OpqIvfPqIndex

    def plan(self, items: int, dim: int, config: IndexConfig) -> dict[str, int]:
        """As of `FastScan`, with a segment per two coordinates.

        Raises:
            ConfigError: more segments than coordinates.
        """
        segments = config.ivf.segments or -(-dim // 2)
        return {**plan_reranked_lists(items, dim, config), "segments": segments}

    def candidates(self, items: int, dim: int, config: IndexConfig) -> list[dict[str, int]]:
        """The finest codes first."""
        plan = self.plan(items, dim, config)
        half, fourth, eighth = (-(-dim // width) for width in (2, 4, 8))
        shapes = [(half, 8), (fourth, 8), (half, 0), (fourth, 0), (eighth, 0)]
        return [{**plan, "segments": s, "refine_bits": b} for s, b in shapes]

    def train_rotation(self, item_NE: Floats, parameters: Mapping[str, int], seed: int) -> Any:
        """The rotation that minimizes the error of product codes."""
        segments = parameters["segments"]
        rotation = faiss.OPQMatrix(item_NE.shape[1], segments)
        rotation.niter = _ROUNDS
        rotation.niter_pq_0 = _ROUNDS
        quantizer = faiss.ProductQuantizer(item_NE.shape[1], segments, 8)
        quantizer.cp.seed = seed
        quantizer.cp.min_points_per_centroid = 1
        rotation.pq = quantizer
        keep_alive(rotation, quantizer)
        training_ME = tiled(sample_rows(item_NE, _TRAINING_ITEMS, seed), CENTROIDS)
        rotation.train(np.ascontiguousarray(training_ME))
        return rotation

    def fill(
        self,
        item_NE: Floats,
        rotation: Any,
        centroid_LE: Floats,
        parameters: Mapping[str, int],
        seed: int,
    ) -> Any:
        """Lists and codes of rotated items, and vectors for reranking that are not rotated.

        See `Inverted.fill` for the arguments.
        """
        ivf = self._fill_lists(rotation.apply(item_NE), centroid_LE, parameters, seed)
        rotated = faiss.IndexPreTransform(rotation, ivf)
        keep_alive(rotated, rotation, ivf)
        return with_reranking(rotated, item_NE, parameters["refine_bits"])

    def estimate_bytes(self, items: int, dim: int, parameters: Mapping[str, int]) -> int:
        """A byte a segment and eight for the row; rotation, centroids, reranking."""
        segments, lists = parameters["segments"], parameters["lists"]
        dim = padded_dim(dim, segments)
        tables = (dim + lists + CENTROIDS) * dim * 4 + lists * 8
        codes = items * (segments + 8)
        return codes + tables + reranking_bytes(items, dim, parameters["refine_bits"])

    def build_seconds(self, items: int, dim: int, parameters: Mapping[str, int]) -> float:
        """The rotation, the lists, and encoding every item."""
        rotation = _TRAINING_ITEMS * dim * (CENTROIDS * 8 + dim) * _ROUNDS
        seconds = rotation * cost.MULTIPLY_ADD_NS * 1e-9
        return super().build_seconds(items, dim, parameters) + seconds
