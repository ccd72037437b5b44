"""Inverted lists of product codes after a learned rotation, the best of them ranked anew.

Optimized product quantization (Ge, He, Ke and Sun, CVPR 2013).

Legend: N items, M of them, D coordinates, E padded ones, L lists.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import faiss
import numpy as np

from embedmill.pipeline.config import IndexConfig
from embedmill.pipeline.index import cost
from embedmill.pipeline.index.contract import Floats
from embedmill.pipeline.index.kinds.fastscan import FastScan
from embedmill.pipeline.index.kinds.inverted import sample
from embedmill.pipeline.index.kinds.ivfpq import CENTROIDS, IvfPq
from embedmill.pipeline.index.kinds.padding import padded_dim
from embedmill.pipeline.index.kinds.reranking import enough, keep, refine_bytes, refined

__all__ = ["OpqIvfPq"]

# Items that the rotation is learned from, and rounds.
_TRAINED_WITH = 16_384
_ROUNDS = 6


class OpqIvfPq(IvfPq):
    """A byte per segment of the rotated vector, then a second look as of `FastScan`."""

    @staticmethod
    def plan(items: int, dim: int, config: IndexConfig) -> dict[str, int]:
        """As of `FastScan`, with a segment per two coordinates."""
        segments = config.ivf.segments or -(-dim // 2)
        return {**FastScan.plan(items, dim, config), "segments": segments}

    @classmethod
    def candidates(cls, items: int, dim: int, config: IndexConfig) -> list[dict[str, int]]:
        """The finest codes first."""
        plan = cls.plan(items, dim, config)
        half, fourth, eighth = (-(-dim // part) for part in (2, 4, 8))
        shapes = [(half, 8), (fourth, 8), (half, 0), (fourth, 0), (eighth, 0)]
        return [{**plan, "segments": s, "refine_bits": b} for s, b in shapes]

    @classmethod
    def turning(cls, item_NE: Floats, parameters: Mapping[str, int], seed: int) -> Any:
        """The rotation that makes codes of segments fit best."""
        return _rotation(item_NE, parameters["segments"], seed)

    @classmethod
    def over(
        cls,
        item_NE: Floats,
        turn: Any,
        centroid_LE: Floats,
        parameters: Mapping[str, int],
        seed: int,
    ) -> Any:
        """Lists and codes of rotated items, and the raw ones that rank anew."""
        inner = cls._filled(turn.apply(item_NE), centroid_LE, parameters, seed)
        engine = faiss.IndexPreTransform(turn, inner)
        keep(engine, turn, inner)
        return refined(engine, item_NE, parameters["refine_bits"])

    @staticmethod
    def estimate(items: int, dim: int, parameters: Mapping[str, int]) -> int:
        """A byte a segment and eight for the row; rotation, centroids, what ranks anew."""
        segments, lists = parameters["segments"], parameters["lists"]
        wide = padded_dim(dim, segments)
        tables = (wide + lists + CENTROIDS) * wide * 4 + lists * 8
        codes = items * (segments + 8)
        return codes + tables + refine_bytes(items, wide, parameters["refine_bits"])

    @staticmethod
    def work(items: int, dim: int, parameters: Mapping[str, int]) -> float:
        """Of the rotation, the lists, and encoding every item."""
        turning = _TRAINED_WITH * dim * (CENTROIDS * 8 + dim) * _ROUNDS
        return IvfPq.work(items, dim, parameters) + turning * cost.MULTIPLY * 1e-9

    def variants(self) -> list[dict[str, int]]:
        """How many are ranked anew."""
        if not self.parameters["refine_bits"]:
            return [{}]
        return [{"refine": times} for times in (3, 6, 12, 24)]

    def _compared(self, scanned: float, dim: int, k: int) -> float:
        """The rotation, a table for the query, codes, and what is ranked anew."""
        segments, refine = self.parameters["segments"], self.parameters["refine"]
        tables = cost.products(dim + CENTROIDS, dim) + cost.looked_up_codes(scanned, segments)
        return tables + cost.looked_up(k * refine, dim, self.parameters["refine_bits"])


def _rotation(item_NE: Floats, segments: int, seed: int) -> Any:
    rotation = faiss.OPQMatrix(item_NE.shape[1], segments)
    rotation.niter = _ROUNDS
    rotation.niter_pq_0 = _ROUNDS
    quantizer = faiss.ProductQuantizer(item_NE.shape[1], segments, 8)
    quantizer.cp.seed = seed
    quantizer.cp.min_points_per_centroid = 1
    rotation.pq = quantizer
    keep(rotation, quantizer)
    learned = enough(sample(item_NE, _TRAINED_WITH, seed), CENTROIDS)
    rotation.train(np.ascontiguousarray(learned))
    return rotation
