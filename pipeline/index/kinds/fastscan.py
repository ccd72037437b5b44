"""Inverted lists of four-bit codes compared in registers, the best of them reranked.

Product quantization (Jegou, Douze and Schmid, PAMI 2011) with 16 centroids a segment, so that the
lookup table of a query fits the vector registers (Andre, Kermarrec and Le Scouarnec, VLDB 2015),
as in ScaNN (Guo et al., ICML 2020).

Legend: N items, M training items, D coordinates, E coordinates after padding, L lists.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import faiss

from embedmill.pipeline.config import IndexConfig
from embedmill.pipeline.index import cost
from embedmill.pipeline.index.kinds.inverted import (
    Inverted,
    InvertedIndex,
    build_inverted,
    check_segments,
    plan_lists,
    sample_rows,
)
from embedmill.pipeline.index.kinds.padding import padded_dim
from embedmill.pipeline.index.kinds.reranking import reranking_bytes, tiled, with_reranking
from embedmill.pipeline.index.searchable import Floats

__all__ = ["FastScan", "FastScanIndex", "plan_reranked_lists"]

_CENTROIDS = 16
# Training of the codes: items, items per centroid of a segment, and rounds.
_TRAINING_ITEMS = 1 << 16
_TRAINING_ITEMS_PER_CENTROID = 128
_ROUNDS = 12
# Codes that are compared together; each list is filled up to a multiple.
_BLOCK = 32


class FastScanIndex(InvertedIndex):
    """Four-bit codes in lists, and reranking."""

    def variants(self) -> list[dict[str, int]]:
        """How many candidates per answer are reranked."""
        if not self.parameters["refine_bits"]:
            return [{}]
        return [{"refine": times} for times in (2, 4, 8, 16)]

    def _scan_us(self, scanned: float, dim: int, k: int) -> float:
        codes = cost.pq4_scan(scanned, self.parameters["segments"] / 2)
        refine, bits = self.parameters["refine"], self.parameters["refine_bits"]
        return codes + cost.reranked(k * refine, dim, bits)


class FastScan(Inverted):
    """Half a byte per segment of the residual of a vector from its centroid, then reranking.

    `refine` times as many candidates as answers are reranked with `refine_bits` a coordinate.

    On 394,000 word vectors of 50 coordinates one segment per coordinate was best: with codes so
    fine, few candidates have to be reranked.
    """

    index_class = FastScanIndex
    min_trials = 3

    def plan(self, items: int, dim: int, config: IndexConfig) -> dict[str, int]:
        """Lists, probes, segments and reranking.

        Raises:
            ConfigError: more segments than coordinates.
        """
        return plan_reranked_lists(items, dim, config)

    def candidates(self, items: int, dim: int, config: IndexConfig) -> list[dict[str, int]]:
        """From the finest reranking to none, each from the finest codes to the coarsest."""
        plan = self.plan(items, dim, config)
        counts = list(dict.fromkeys(-(-dim // width) for width in (1, 2, 4)))
        counts = [config.ivf.segments] if config.ivf.segments else counts
        return [{**plan, "segments": s, "refine_bits": b} for b in (32, 16, 8, 0) for s in counts]

    def _fill_lists(
        self, item_NE: Floats, centroid_LE: Floats, parameters: Mapping[str, int], seed: int
    ) -> Any:
        lists, dim = centroid_LE.shape

        def make(quantizer: Any) -> Any:
            ivf = faiss.IndexIVFPQFastScan(
                quantizer, dim, lists, parameters["segments"], 4, faiss.METRIC_INNER_PRODUCT
            )
            ivf.by_residual = True
            clustering = ivf.pq.cp
            clustering.seed, clustering.niter = seed, _ROUNDS
            clustering.min_points_per_centroid = 1
            clustering.max_points_per_centroid = _TRAINING_ITEMS_PER_CENTROID
            return ivf

        training_ME = tiled(sample_rows(item_NE, _TRAINING_ITEMS, seed), _CENTROIDS)
        # The k-means of each segment is so small that threads would only wait for each other.
        ivf = build_inverted(make, item_NE, centroid_LE, training_ME, train_threads=1)
        return with_reranking(ivf, item_NE, parameters["refine_bits"])

    def estimate_bytes(self, items: int, dim: int, parameters: Mapping[str, int]) -> int:
        """Half a byte a segment and eight for the row; centroids, and vectors of the reranking."""
        segments, lists = parameters["segments"], parameters["lists"]
        dim = padded_dim(dim, segments)
        # Lists are filled up to whole blocks: half a block of padding each, on average.
        codes = (items + lists * _BLOCK // 2) * (segments + segments % 2) // 2
        tables = (lists + _CENTROIDS) * dim * 4 + lists * 8
        return codes + items * 8 + tables + reranking_bytes(items, dim, parameters["refine_bits"])

    def build_seconds(self, items: int, dim: int, parameters: Mapping[str, int]) -> float:
        """The lists, and encoding every item."""
        encoding = items * dim * _CENTROIDS * cost.MULTIPLY_ADD_NS * 4e-9
        return super().build_seconds(items, dim, parameters) + encoding

    def unstored_bytes(self, parameters: Mapping[str, int]) -> int:
        """A table by list, segment and centroid.

        It exceeds the file where a shard has few items in many lists.
        """
        segments = parameters["segments"]
        return parameters["lists"] * (segments + segments % 2) * _CENTROIDS * 4


def plan_reranked_lists(items: int, dim: int, config: IndexConfig) -> dict[str, int]:
    """Lists, probes, segments and reranking of kinds with codes and reranking.

    Raises:
        ConfigError: more segments than coordinates.
    """
    given = config.ivf
    check_segments("index.ivf.segments", given.segments, dim, "the kind's own choice")
    return {
        **plan_lists(items, config, 2),
        "segments": given.segments or dim,
        "refine": given.refine,
        "refine_bits": given.refine_bits,
    }
