"""A finished index artifact, searched for rows of the vocabulary.

Legend: B queries, k answers each, K answers before some are removed, C queries searched together,
N items in the index, D coordinates.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from embedmill.pipeline.errors import ContractError
from embedmill.pipeline.index.excluded_rows import ExcludedRows
from embedmill.pipeline.index.incremental.incremental_files import open_incremental
from embedmill.pipeline.index.kinds import kind_of
from embedmill.pipeline.index.memory_map import map_index
from embedmill.pipeline.index.searchable import Floats, Rows, Searchable, no_answers
from embedmill.pipeline.index.sharded.sharded_index import ShardedIndex
from embedmill.pipeline.store.artifact import Artifact
from embedmill.pipeline.views.index import StoredIndex
from embedmill.schemas.index import SPEC, ShardSpec

__all__ = ["RowSearcher", "first_allowed", "open_index"]


@dataclass(frozen=True)
class RowSearcher:
    """Searches an index for rows of the vocabulary, and maps between positions, rows and ids."""

    stored: StoredIndex
    index: Searchable

    @property
    def items(self) -> int:
        """N."""
        return self.stored.spec.items

    @property
    def dim(self) -> int:
        """D."""
        return self.stored.spec.dim

    @functools.cached_property
    def row_N(self) -> Rows:  # noqa: N802 (a shape)
        """Rows of the items by position, rising; not every row of the vocabulary is indexed."""
        return self.stored.rows()

    @functools.cached_property
    def id_N(self) -> pa.ChunkedArray:  # noqa: N802 (a shape)
        """Raw ids of the items by position."""
        return self.stored.ids()

    def search(self, query_BD: Floats, k: int) -> tuple[Floats, Rows]:
        """Scores float32 [B, k] and rows int64 [B, k]; see `Searchable.search`."""
        score_Bk, position_Bk = self.index.search(query_BD, k)
        return score_Bk, self._rows(position_Bk)

    def search_unseen(self, query_BD: Floats, k: int, seen: ExcludedRows) -> tuple[Floats, Rows]:
        """The k best items outside each query's list.

        An index cannot exclude items: it is searched for k answers and as many as the query has
        seen, rounded up to a power of two, and the seen ones are removed.

        Args:
            query_BD: float32 [B, D].
            k: answers wanted.
            seen: rows to exclude, a list for each query.

        Returns:
            scores float32 [B, k] and rows int64 [B, k], -inf and -1 where there are no more.
        """
        score_Bk, row_Bk = no_answers(len(query_BD), k)
        for batch, width in seen.widths(k, self.items):
            score_CK, row_CK = self.search(query_BD[batch], width)
            excluded_CK = seen.select(batch).contain(row_CK)
            score_Ck, row_Ck = first_allowed(score_CK, row_CK, excluded_CK, k)
            found_k = score_Ck.shape[1]
            score_Bk[batch, :found_k], row_Bk[batch, :found_k] = score_Ck, row_Ck
        return score_Bk, row_Bk

    def positions(self, rows: Rows) -> Rows:
        """Positions of rows that are in the index."""
        positions: Rows = np.searchsorted(self.row_N, rows)
        return positions

    def positions_of_ids(self, ids: pa.Array) -> Rows:
        """Positions of raw ids; -1 where the index has no such id."""
        positions, first = np.full(len(ids), -1, np.int64), 0
        for chunk in self.id_N.chunks:  # all of them may not fit into one array
            found = pc.index_in(ids, value_set=chunk, skip_nulls=True)
            place = pc.fill_null(found, -1).to_numpy().astype(np.int64)
            positions = np.where((positions < 0) & (place >= 0), first + place, positions)
            first += len(chunk)
        return positions

    def ids(self, rows: Rows) -> list[str]:
        """Raw ids of rows that are in the index, in their order."""
        return list(self.id_N.take(pa.array(self.positions(rows))).to_pylist())

    def _rows(self, position_Bk: Rows) -> Rows:
        """Rows of positions; -1 stays."""
        if not len(self.row_N):
            return position_Bk
        return np.where(position_Bk < 0, -1, self.row_N[position_Bk])


def first_allowed(
    score_CK: Floats, row_CK: Rows, excluded_CK: NDArray[np.bool_], k: int
) -> tuple[Floats, Rows]:
    """The first k answers of each query that are not excluded.

    Args:
        score_CK: float32 [C, K], falling.
        row_CK: int64 [C, K], -1 where there are no more.
        excluded_CK: bool [C, K].
        k: answers wanted.

    Returns:
        scores and rows [C, at most k], filled up with -inf and -1.
    """
    excluded_CK = excluded_CK | (row_CK < 0)
    # A stable sort: the other answers keep their order.
    order = np.argsort(excluded_CK, axis=1, kind="stable")[:, :k]
    allowed_Ck = ~np.take_along_axis(excluded_CK, order, 1)
    score_Ck = np.take_along_axis(score_CK, order, 1)
    row_Ck = np.take_along_axis(row_CK, order, 1)
    score_Ck = np.where(allowed_Ck, score_Ck, -np.inf).astype(np.float32)
    return score_Ck, np.where(allowed_Ck, row_Ck, -1)


def open_index(artifact: Artifact, *, again: bool = False, keep: bool = False) -> RowSearcher:
    """Open the index of an artifact; its bytes are checked before FAISS reads them.

    On a local disk the file is mapped into memory, not read.

    Args:
        artifact: a finished index.
        again: hash the file even where it was hashed before and has not been written to since.
        keep: put a remote file into the cache, for the next time.

    Raises:
        CorruptArtifactError: the bytes differ from the manifest's sha256.
        ContractError: the index does not hold what its spec says.
    """
    stored = StoredIndex(artifact)
    spec = stored.spec
    if spec.shards:
        sharded = _open_sharded(stored, spec.shards, again=again)
        if spec.incremental is not None:
            return RowSearcher(stored, open_incremental(stored, spec.incremental, sharded))
        return RowSearcher(stored, sharded)
    kind = kind_of(spec.kind)
    if keep or artifact.storage.is_local:
        index = map_index(stored.local_file(again=again), kind, spec.parameters)
    else:
        index = kind.load(stored.read(), spec.parameters)
    if spec.incremental is not None:
        return RowSearcher(stored, open_incremental(stored, spec.incremental, index))
    if index.items != spec.items:
        raise ContractError(
            f"holds {index.items:,} items, its spec says {spec.items:,}", where=stored.url
        )
    return RowSearcher(stored, index)


def _open_sharded(stored: StoredIndex, shards: list[ShardSpec], *, again: bool) -> ShardedIndex:
    """Map the shards of an artifact into memory; remote files go into the cache."""
    spec = stored.spec
    kind = kind_of(spec.kind)
    index = ShardedIndex(
        [map_index(stored.local_shard(one, again=again), kind, spec.parameters) for one in shards]
    )
    found, expected = [shard.items for shard in index.shards], [one.items for one in shards]
    slots = spec.items if spec.incremental is None else spec.incremental.base_slots
    if found != expected or sum(found) != slots:
        raise ContractError(
            f"shards hold {found} items, their spec says {expected} and {slots:,} in all",
            where=stored.artifact.url(SPEC.path),
        )
    return index
