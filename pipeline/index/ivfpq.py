"""Inverted lists with product quantization (Jegou, Douze and Schmid, PAMI 2011)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Self

import faiss
import numpy as np

from pipeline.config import IndexConfig
from pipeline.errors import ConfigError
from pipeline.index.contract import Floats, Index, Rows, threads

__all__ = ["IvfPq"]

_CENTROIDS = 256
# Items per list below which FAISS calls k-means unreliable.
_PER_LIST = 39
# Coordinates in all below which k-means takes one thread: its threads spin while they wait
# for each other, and on a busy machine two took six times as long as one.
_SMALL = 1 << 20


class IvfPq(Index):
    """One byte per segment of a vector, in lists of which a search probes some.

    Vectors are padded with zeros to a whole number of coordinates per segment, which
    changes no inner product. A small catalogue gets fewer lists (at least 39 items each),
    and where it has fewer than the 256 items that a codebook needs, it is trained on
    repetitions: every item is then its own centroid.
    """

    knob = "probes"

    @staticmethod
    def plan(items: int, dim: int, config: IndexConfig) -> dict[str, int]:
        """Settle lists, probes and segments.

        Raises:
            ConfigError: more segments than coordinates.
        """
        asked = config.ivfpq
        if asked.segments > dim:
            raise ConfigError(
                f"index.ivfpq.segments: {asked.segments} segments of {dim} coordinates; "
                f"allowed: 1 to {dim}, or 0 for one per two coordinates"
            )
        lists = min(asked.lists or round(4 * math.sqrt(items)), max(1, items // _PER_LIST))
        return {
            "lists": max(1, lists),
            "probes": min(asked.probes or -(-lists // 4), lists),
            "segments": asked.segments or -(-dim // 2),
        }

    @classmethod
    def build(cls, item_ND: Floats, parameters: Mapping[str, int], seed: int) -> Self:
        """Learn lists and codebooks, then encode every item."""
        segments = parameters["segments"]
        item_NE = _padded(item_ND, segments)
        quantizer = faiss.IndexFlatIP(item_NE.shape[1])
        engine = faiss.IndexIVFPQ(
            quantizer,
            item_NE.shape[1],
            parameters["lists"],
            segments,
            8,
            faiss.METRIC_INNER_PRODUCT,
        )
        for clustering in (engine.cp, engine.pq.cp):
            clustering.seed = seed
            clustering.min_points_per_centroid = 1  # decided in `plan`: no warnings
        engine.nprobe = parameters["probes"]
        enough = -(-_CENTROIDS // max(1, len(item_NE))) if len(item_NE) < _CENTROIDS else 1
        with threads(1 if item_NE.size < _SMALL else 0):
            engine.train(np.tile(item_NE, (enough, 1)))
        engine.add(item_NE)
        return cls(engine, parameters)

    @staticmethod
    def estimate(items: int, dim: int, parameters: Mapping[str, int]) -> int:
        """A byte per segment and eight for the row; centroids of lists and codebooks."""
        wide = -(-dim // parameters["segments"]) * parameters["segments"]
        centroids = (parameters["lists"] + _CENTROIDS) * wide * 4
        return items * (parameters["segments"] + 8) + centroids

    def settings(self) -> list[int]:
        """Powers of two up to all lists."""
        lists = self.parameters["lists"]
        powers = {2**i for i in range(lists.bit_length()) if 2**i <= lists}
        return sorted(powers | {self.parameters["probes"], lists})

    def _search(self, query_BD: Floats, k: int, setting: int) -> tuple[Floats, Rows]:
        lists = self.parameters["lists"]
        # Lists are uneven: enough of them that twice the answers are in sight.
        enough = math.ceil(2 * k * lists / self.engine.ntotal)
        probes = min(lists, max(setting or self.parameters["probes"], enough))
        query_BE = _padded(query_BD, self.parameters["segments"])
        score_Bk, row_Bk = self.engine.search(
            query_BE,
            k,
            params=faiss.SearchParametersIVF(nprobe=probes),  # type: ignore[call-arg]
        )
        return score_Bk, row_Bk

    @staticmethod
    def _unstored(parameters: Mapping[str, int]) -> int:
        return parameters["lists"] * parameters["segments"] * _CENTROIDS * 4


def _padded(vector_ND: Floats, segments: int) -> Floats:
    """Zeros on the right up to a multiple of `segments`."""
    missing = -vector_ND.shape[1] % segments
    return np.pad(vector_ND, ((0, 0), (0, missing))) if missing else vector_ND
