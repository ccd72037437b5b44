"""An index in several files: all shards are searched, and their best answers merged.

Legend: B queries, k answers each, A answers of all shards, D coordinates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Self

import numpy as np

from embedmill.pipeline.index.kinds import kind_of
from embedmill.pipeline.index.memory_map import map_index
from embedmill.pipeline.index.searchable import FaissIndex, Floats, Rows
from embedmill.pipeline.store.storage import Storage

__all__ = ["ShardedIndex", "open_shard", "open_shards"]


class ShardedIndex:
    """A `Tunable` over shards of one kind with the same parameters.

    The positions of a shard's items follow those of the shard before it. Kinds with inverted
    lists share centroids and codes, so that the shards together compare what one index would, and
    find at least as much; the extra cost is ranking the centroids once per shard. Graphs know
    nothing of each other and are searched one after another.
    """

    def __init__(self, shards: Sequence[FaissIndex]) -> None:
        self.shards = tuple(shards)
        self.items = sum(shard.items for shard in shards)
        self.parameters = shards[0].parameters
        self.search_parameter, self.exact = shards[0].search_parameter, shards[0].exact

    def settings(self) -> list[int]:
        """Those of all shards, rising; see `Searchable.settings`."""
        return sorted({setting for shard in self.shards for setting in shard.settings()})

    def limits(self) -> tuple[int, int]:
        """The least and the greatest that is of use to any shard; see `Tunable.limits`."""
        least, most = zip(*(shard.limits() for shard in self.shards), strict=True)
        return min(least), max(most)

    def variants(self) -> list[dict[str, int]]:
        """Those of a shard, and those in which all shards together rerank as much as one index.

        See `Tunable.variants`.
        """
        of_shard = self.shards[0].variants()
        divided = [
            {**variant, "refine": -(-variant["refine"] // len(self.shards))}
            for variant in of_shard
            if "refine" in variant
        ]
        distinct = [one for number, one in enumerate(divided) if one not in divided[:number]]
        return distinct + [one for one in of_shard if one not in distinct]

    def with_parameters(self, parameters: Mapping[str, int]) -> Self:
        """See `Tunable.with_parameters`."""
        return type(self)([shard.with_parameters(parameters) for shard in self.shards])

    def cost_us(self, query_BD: Floats, k: int, items: int = 0) -> float:
        """The sum over all shards; see `Tunable.cost_us`."""
        growth = (items or self.items) / self.items
        return sum(shard.cost_us(query_BD, k, round(growth * shard.items)) for shard in self.shards)

    def search(self, query_BD: Floats, k: int, setting: int = 0) -> tuple[Floats, Rows]:
        """The k best items of each query; see `Searchable.search`.

        A shard whose probed lists hold nothing near a query is not searched further: only where
        all shards together find fewer than k is each searched exhaustively.
        """
        query_BD = np.ascontiguousarray(query_BD)
        score_Bk, position_Bk = self._merged(query_BD, k, setting, partial=True)
        lacking = np.flatnonzero((position_Bk[:, : min(k, self.items)] < 0).any(axis=1))
        if len(lacking):
            complete = self._merged(query_BD[lacking], k, setting, partial=False)
            score_Bk[lacking], position_Bk[lacking] = complete
        return score_Bk, position_Bk

    def _merged(
        self, query_BD: Floats, k: int, setting: int, *, partial: bool
    ) -> tuple[Floats, Rows]:
        """The best of all shards, equal ones by lower position; -inf and -1 beyond them."""
        scores = [np.full((len(query_BD), k), -np.inf, np.float32)]
        positions = [np.full((len(query_BD), k), -1, np.int64)]
        first = 0
        for shard in self.shards:
            shard_k = min(k, shard.items)
            if shard_k and len(query_BD):
                search = shard.search_partial if partial else shard.search
                score_Bk, position_Bk = search(query_BD, shard_k, setting)
                absent_Bk = position_Bk < 0
                scores.append(np.where(absent_Bk, -np.inf, score_Bk).astype(np.float32))
                positions.append(np.where(absent_Bk, -1, position_Bk + first))
            first += shard.items
        score_BA, position_BA = np.concatenate(scores, axis=1), np.concatenate(positions, axis=1)
        # Absent answers come last, after answers of score -inf.
        order = np.lexsort((position_BA, -score_BA, position_BA < 0), axis=1)[:, :k]
        return np.take_along_axis(score_BA, order, 1), np.take_along_axis(position_BA, order, 1)


def open_shards(
    storage: Storage, kind: str, parameters: Mapping[str, int], paths: Sequence[str]
) -> ShardedIndex:
    """Open shards that have just been written.

    Args:
        storage: of the files.
        kind: of all shards.
        parameters: of all shards.
        paths: of the files, in order.
    """
    return ShardedIndex([open_shard(storage, kind, parameters, path) for path in paths])


def open_shard(storage: Storage, kind: str, parameters: Mapping[str, int], path: str) -> FaissIndex:
    """Open one shard, mapped into memory where it lies on a local disk; see `map_index`.

    Args:
        storage: of the file.
        kind: of the shard.
        parameters: of the shard.
        path: of the file, which was checked or has just been written.
    """
    if storage.is_local:
        return map_index(storage.local_path(path), kind_of(kind), parameters)
    return kind_of(kind).load(storage.read(path), parameters)
