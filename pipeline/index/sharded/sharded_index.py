"""An index in several files: each holds a run of places, all are searched, the best are merged.

Legend: B queries, k answers each, A answers of all shards, D coordinates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from embedmill.pipeline.config import IndexConfig
from embedmill.pipeline.index.contract import Floats, Index, Rows

__all__ = ["Sharded"]

_OF_ITS_KIND = "an index in shards is planned, built and saved shard by shard"


@dataclass(frozen=True)
class _Held:
    """What stands for an engine: how many items there are."""

    ntotal: int


class Sharded(Index):
    """Indices of one kind with the same parameters; answers are places among all their items.

    Shard s holds the places that follow those of shard s - 1. Kinds with lists share their
    centroids and codes, so that the shards together compare what one index would, and find at
    least as much; what they cost more is to rank the centroids once for each shard. Graphs know
    nothing of each other and are walked one after another.
    """

    def __init__(self, shards: Sequence[Index]) -> None:
        first = shards[0]
        super().__init__(_Held(sum(int(s.engine.ntotal) for s in shards)), first.parameters)
        self.shards = tuple(shards)
        self.knob, self.exact = first.knob, first.exact

    def sizes(self) -> list[int]:
        """Places of each shard."""
        return [int(shard.engine.ntotal) for shard in self.shards]

    def limits(self) -> tuple[int, int]:
        """The least and the greatest that is of use to any shard."""
        least, most = zip(*(shard.limits() for shard in self.shards), strict=True)
        return min(least), max(most)

    def variants(self) -> list[dict[str, int]]:
        """Those of a shard, and as many items ranked anew by all shards as by one index.

        See `Index.variants`.
        """
        of_one = self.shards[0].variants()
        shared = [
            {**one, "refine": -(-one["refine"] // len(self.shards))}
            for one in of_one
            if "refine" in one
        ]
        found = [one for place, one in enumerate(shared) if one not in shared[:place]]
        return found + [one for one in of_one if one not in found]

    def at(self, parameters: Mapping[str, int]) -> Self:
        """See `Index.at`."""
        return type(self)([shard.at(parameters) for shard in self.shards])

    def microseconds(self, query_BD: Floats, k: int, items: int = 0) -> float:
        """Of all shards, one after another; see `Index.microseconds`."""
        share = (items or self.engine.ntotal) / self.engine.ntotal
        return sum(
            shard.microseconds(query_BD, k, round(share * shard.engine.ntotal))
            for shard in self.shards
        )

    @staticmethod
    def plan(items: int, dim: int, config: IndexConfig) -> dict[str, int]:
        """Of the kind of the shards, not here."""
        raise TypeError(_OF_ITS_KIND)

    @staticmethod
    def work(items: int, dim: int, parameters: Mapping[str, int]) -> float:
        """Of the kind of the shards, not here."""
        raise TypeError(_OF_ITS_KIND)

    @staticmethod
    def estimate(items: int, dim: int, parameters: Mapping[str, int]) -> int:
        """Of the kind of the shards, not here."""
        raise TypeError(_OF_ITS_KIND)

    @classmethod
    def build(cls, item_ND: Floats, parameters: Mapping[str, int], seed: int) -> Self:
        """Shards are built by tasks; see `shards`."""
        raise TypeError(_OF_ITS_KIND)

    def save(self) -> bytes:
        """Each shard has a file of its own."""
        raise TypeError(_OF_ITS_KIND)

    def search(self, query_BD: Floats, k: int, setting: int = 0) -> tuple[Floats, Rows]:
        """The k best items of each query; see `Index.search`.

        A shard that has nothing near a query is not searched further for its sake: only where
        all of them together find fewer than k is each asked to look at all it has.
        """
        query_BD = np.ascontiguousarray(query_BD)
        score_Bk, place_Bk = self._merged(query_BD, k, setting, thorough=False)
        short = np.flatnonzero((place_Bk[:, : min(k, self.engine.ntotal)] < 0).any(axis=1))
        if len(short):
            found = self._merged(query_BD[short], k, setting, thorough=True)
            score_Bk[short], place_Bk[short] = found
        return score_Bk, place_Bk

    def _merged(
        self, query_BD: Floats, k: int, setting: int, *, thorough: bool
    ) -> tuple[Floats, Rows]:
        """The best of all shards, equal ones by lower place; -inf and -1 where there are none."""
        scores = [np.full((len(query_BD), k), -np.inf, np.float32)]
        places = [np.full((len(query_BD), k), -1, np.int64)]
        first = 0
        for shard in self.shards:
            held = min(k, int(shard.engine.ntotal))
            if held and len(query_BD):
                ask = shard.search if thorough else shard.glance
                score_Bh, place_Bh = ask(query_BD, held, setting)
                scores.append(np.where(place_Bh < 0, -np.inf, score_Bh).astype(np.float32))
                places.append(np.where(place_Bh < 0, -1, place_Bh + first))
            first += int(shard.engine.ntotal)
        score_BA, place_BA = np.concatenate(scores, axis=1), np.concatenate(places, axis=1)
        # What is not there comes last, whatever its place.
        order = np.lexsort((place_BA, -score_BA, place_BA < 0), axis=1)[:, :k]
        return np.take_along_axis(score_BA, order, 1), np.take_along_axis(place_BA, order, 1)
