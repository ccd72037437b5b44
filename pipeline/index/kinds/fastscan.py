"""Inverted lists of four-bit codes compared in registers, the best of them ranked anew.

Product quantization (Jegou, Douze and Schmid, PAMI 2011) with 16 centroids a segment, whose
table of a query fits the vector registers (Andre, Kermarrec and Le Scouarnec, VLDB 2015), as
ScaNN does (Guo et al., ICML 2020).

Legend: N items, M of them, D coordinates, E padded ones, L lists.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import faiss

from embedmill.pipeline.config import IndexConfig
from embedmill.pipeline.index import cost
from embedmill.pipeline.index.contract import Floats
from embedmill.pipeline.index.kinds.inverted import (
    Inverted,
    check_segments,
    filled,
    lists_of,
    sample,
)
from embedmill.pipeline.index.kinds.padding import padded_dim
from embedmill.pipeline.index.kinds.reranking import enough, refine_bytes, refined

__all__ = ["FastScan"]

_CENTROIDS = 16
# Items that codes are learned from, those that a centroid of a segment looks at, and rounds.
_TRAINED_WITH = 1 << 16
_LOOKED_AT = 128
_ROUNDS = 12
# Codes that are compared together; each list is filled up to a multiple.
_BLOCK = 32


class FastScan(Inverted):
    """Half a byte per segment of a vector's distance to its centroid, then a second look.

    `refine` times the answers wanted are ranked anew with `refine_bits` a coordinate.

    On 394,000 word vectors of 50 coordinates a segment per coordinate was best, for so fine codes
    leave little to rank anew.
    """

    tries = 3

    @staticmethod
    def plan(items: int, dim: int, config: IndexConfig) -> dict[str, int]:
        """Settle lists, probes, segments and what ranks anew.

        Raises:
            ConfigError: more segments than coordinates.
        """
        asked = config.ivf
        check_segments("index.ivf.segments", asked.segments, dim, "the kind's own choice")
        return {
            **lists_of(items, config, 2),
            "segments": asked.segments or dim,
            "refine": asked.refine,
            "refine_bits": asked.refine_bits,
        }

    @classmethod
    def candidates(cls, items: int, dim: int, config: IndexConfig) -> list[dict[str, int]]:
        """The finest codes first, and what ranks anew as fine as is of use."""
        plan = cls.plan(items, dim, config)
        cuts = [-(-dim // part) for part in (1, 2, 4)]
        cuts = [config.ivf.segments] if config.ivf.segments else list(dict.fromkeys(cuts))
        return [{**plan, "segments": s, "refine_bits": b} for b in (32, 16, 8, 0) for s in cuts]

    @staticmethod
    def _filled(
        item_NE: Floats, centroid_LE: Floats, parameters: Mapping[str, int], seed: int
    ) -> Any:
        lists, wide = centroid_LE.shape

        def make(quantizer: Any) -> Any:
            engine = faiss.IndexIVFPQFastScan(
                quantizer, wide, lists, parameters["segments"], 4, faiss.METRIC_INNER_PRODUCT
            )
            engine.by_residual = True
            clustering = engine.pq.cp
            clustering.seed, clustering.niter = seed, _ROUNDS
            clustering.min_points_per_centroid = 1
            clustering.max_points_per_centroid = _LOOKED_AT
            return engine

        learned_ME = enough(sample(item_NE, _TRAINED_WITH, seed), _CENTROIDS)
        # So small a k-means for each segment that threads would only wait for each other.
        engine = filled(make, item_NE, centroid_LE, learned_ME, train_threads=1)
        return refined(engine, item_NE, parameters["refine_bits"])

    @staticmethod
    def estimate(items: int, dim: int, parameters: Mapping[str, int]) -> int:
        """Half a byte a segment, eight for the row; centroids, and what ranks anew."""
        segments, lists = parameters["segments"], parameters["lists"]
        wide = padded_dim(dim, segments)
        # Lists are filled up to whole blocks, which is half a block of each.
        codes = (items + lists * _BLOCK // 2) * (segments + segments % 2) // 2
        tables = (lists + _CENTROIDS) * wide * 4 + lists * 8
        return codes + items * 8 + tables + refine_bytes(items, wide, parameters["refine_bits"])

    @staticmethod
    def work(items: int, dim: int, parameters: Mapping[str, int]) -> float:
        """Of the lists, and of encoding every item."""
        return Inverted.work(items, dim, parameters) + items * dim * 16 * cost.MULTIPLY * 4e-9

    def variants(self) -> list[dict[str, int]]:
        """How many are ranked anew."""
        if not self.parameters["refine_bits"]:
            return [{}]
        return [{"refine": times} for times in (2, 4, 8, 16)]

    def _compared(self, scanned: float, dim: int, k: int) -> float:
        """Codes, and what is ranked anew."""
        codes = cost.codes(scanned, self.parameters["segments"] / 2)
        refine, bits = self.parameters["refine"], self.parameters["refine_bits"]
        return codes + cost.looked_up(k * refine, dim, bits)

    @staticmethod
    def _unstored(parameters: Mapping[str, int]) -> int:
        """A table of lists and codes; larger than the file where a shard has few of many lists."""
        segments = parameters["segments"]
        return parameters["lists"] * (segments + segments % 2) * _CENTROIDS * 4
