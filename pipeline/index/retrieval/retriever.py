"""An open index: searched with vectors or raw ids, it returns raw ids.

Legend: B queries, k answers each, R ids, D coordinates.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from embedmill.pipeline.errors import InputError
from embedmill.pipeline.index.excluded_rows import ExcludedRows
from embedmill.pipeline.index.faiss_threads import faiss_threads
from embedmill.pipeline.index.retrieval.item_filter import ItemFilter
from embedmill.pipeline.index.retrieval.metadata_filter import rows_with_metadata
from embedmill.pipeline.index.retrieval.row_search import RowSearcher
from embedmill.pipeline.index.retrieval.seen_items import SeenItems
from embedmill.pipeline.index.searchable import Floats, Rows, no_answers
from embedmill.pipeline.store.run import Run
from embedmill.pipeline.views.items import ItemMetadata
from embedmill.pipeline.views.shards import Shards
from embedmill.pipeline.views.vectors import Vectors, spec_of
from embedmill.schemas.export import VectorSpec

__all__ = ["FilterLike", "Retriever", "SearchResults", "Side"]

Side = Literal["users", "items"]
# Values by column of the item metadata, raw ids of items, or what `Retriever.item_filter` gave.
FilterLike = Mapping[str, str | Sequence[str]] | Sequence[str] | ItemFilter

Queries = Floats | Sequence[str]
IdLists = Sequence[Sequence[str]]

# numpy's codes of text types: an array of these holds ids, not vectors.
_TEXT_KINDS = "OUST"
# Queries searched for at once.
_BATCH = 4096


@dataclass(frozen=True)
class SearchResults:
    """Scores float32 [B, k] falling and rows int64 [B, k]; -inf and -1 where there are no more."""

    scores: Floats
    rows: Rows
    index: RowSearcher = field(repr=False)

    @functools.cached_property
    def ids(self) -> list[list[str]]:
        """Raw ids, best first; a list is shorter where there are no more."""
        flat = iter(self.index.ids(self.rows[self.rows >= 0]))
        return [[next(flat) for _ in range(n)] for n in (self.rows >= 0).sum(axis=1).tolist()]


@dataclass(frozen=True)
class Retriever:
    """An open index; with its run, it also knows users, vectors and item metadata."""

    index: RowSearcher
    run: Run | None

    def search(
        self,
        queries: Queries,
        k: int = 10,
        *,
        of: Side = "items",
        filter: FilterLike | None = None,
        exclude: Literal["seen"] | IdLists | None = None,
        cores: int = 0,
    ) -> SearchResults:
        """The k items of largest inner product with each query.

        Args:
            queries: vectors, float [B, D], or B raw ids.
            k: answers wanted; of a smaller catalogue all are given.
            of: whether ids are of users or of items. The query of a user is its vector. That of
                an item is its vector without its bias, and the item itself is excluded.
            filter: which items may be returned: {"categories": ["Drama", "Comedy"]} for those
                that have one of these values in a column of the item metadata (of several
                columns: in each), or raw ids of items. `item_filter` prepares one for many
                searches.
            exclude: "seen" excludes the items that the log has the user with, in any split; or
                raw ids of items for each query.
            cores: threads of the search; 0 leaves the number as it is.

        Raises:
            InputError: vectors of another dimension or not finite, ids that are unknown,
                retired or were never trained, a filter that leaves no item.
        """
        if k < 1:
            raise InputError(f"k is {k}", todo="Ask for at least one answer")
        k = min(k, max(1, self.index.items))
        item_filter = None if filter is None else self.item_filter(filter)
        batches = [no_answers(0, k)]
        with faiss_threads(cores):
            for query_BD, excluded in self._batches(queries, of, exclude):
                batches.append(self.search_vectors(query_BD, k, excluded, item_filter))
        scores, rows = (np.concatenate(parts) for parts in zip(*batches, strict=True))
        return SearchResults(scores, rows, self.index)

    def search_vectors(
        self,
        query_BD: Floats,
        k: int,
        excluded: ExcludedRows,
        item_filter: ItemFilter | None = None,
    ) -> tuple[Floats, Rows]:
        """The k best items outside each query's list.

        Args:
            query_BD: float32 [B, D].
            k: answers wanted, at most as many as there are items.
            excluded: rows to leave out, a list for each query.
            item_filter: the items that may be returned; None for all.

        Returns:
            scores float32 [B, k] and rows int64 [B, k]; -inf and -1 where there are no more.
        """
        if item_filter is not None:
            return item_filter.search(self.index, query_BD, k, excluded)
        return self.index.search_unseen(query_BD, k, excluded)

    def _batches(
        self, queries: Queries, of: Side, exclude: Literal["seen"] | IdLists | None
    ) -> Iterator[tuple[Floats, ExcludedRows]]:
        """Vectors of some queries, and the rows to exclude for each."""
        vectors, rows = None, np.empty(0, np.int64)
        if isinstance(queries, np.ndarray) and queries.dtype.kind not in _TEXT_KINDS:
            vectors = self._checked_vectors(queries)
        else:
            rows = self.rows_of(queries if isinstance(queries, str) else list(queries), of)
        if exclude == "seen" and (vectors is not None or of != "users"):
            raise InputError('exclude is "seen", which needs ids of users (of="users")')
        if vectors is None and of == "users":
            self.check_trained(rows)
        count = len(rows) if vectors is None else len(vectors)
        listed = None
        if exclude is not None and exclude != "seen":
            listed = self._rows_of_lists(exclude, count)
        for start in range(0, count, _BATCH):
            batch = slice(start, start + _BATCH)
            if vectors is None:
                query_BD = self.query_vectors(rows[batch], of)
                excluded = self.excluded_rows(rows[batch], of, seen=exclude == "seen")
            else:
                query_BD, excluded = vectors[batch], ExcludedRows.none(len(vectors[batch]))
            if listed is not None:
                excluded = excluded.union(listed.select(np.arange(count)[batch]))
            yield query_BD, excluded

    def rows_of(self, ids: Sequence[str], of: Side) -> Rows:
        """Rows of raw ids, int64 [R].

        Raises:
            InputError: unknown or retired ones.
        """
        if isinstance(ids, str) or not all(isinstance(one, str) for one in ids):
            raise InputError(
                "queries are neither an array of numbers nor a list of ids",
                todo='Give ids as texts: ["7"], not "7" or [7]',
            )
        vectors = Vectors.of(self._run().artifact("export"), of)
        rows = vectors.vocabulary.rows_of(pa.array(ids, pa.string()))
        unknown = np.flatnonzero(rows < 0).tolist()
        if len(unknown) == 1:
            vectors.vocabulary.row_of(ids[unknown[0]])  # raises, and suggests similar ids
        if unknown:
            raise InputError(
                f"{len(unknown):,} of {len(ids):,} {of} are unknown: {_examples(ids, unknown)}",
                where=vectors.export.storage.root,
                todo=f"Give ids of {of} as the log has them",
            )
        for row in rows[~self.live(of)[rows]][:1].tolist():
            vectors.vocabulary.check_live(row)
        return rows

    def check_trained(self, rows: Rows) -> None:
        """Check that users have a vector.

        Raises:
            InputError: all events of a user are held out.
        """
        _, trained = self.seen.of(rows)
        if not trained.all():
            export = self._run().artifact("export")
            (first,) = Vectors.of(export, "users").vocabulary.ids(rows[~trained][:1])
            others = int((~trained).sum()) - 1
            more = f", and of {others:,} more" if others else ""
            raise InputError(
                f"all events of user {_quoted(first)}{more} are held out, so no vector was "
                "learned for it",
                where=self._run().storage.root,
            )

    def query_vectors(self, rows: Rows, of: Side) -> Floats:
        """Vectors to search with for users or items, float32 [R, D]."""
        vectors = Vectors.of(self._run().artifact("export"), of)
        in_one_file = len(np.unique(vectors.files.file_of(rows))) <= 1
        mapped = None if in_one_file else self._matrix(of, vectors)
        vector_RD = vectors.gather(rows) if mapped is None else np.array(mapped[rows], np.float32)
        if of == "items" and self.model.bias:
            # An item's last coordinate is its bias, to which a user's 1 belongs. The bias of the
            # query item says nothing about others.
            vector_RD[:, -1] = 0
        return vector_RD

    def rating_offsets(self, rows: Rows) -> NDArray[np.float64]:
        """What a rating of each user has beside the inner product, float64 [R].

        Global mean and user bias of a rating model, 0 of any other.
        """
        offset_R = np.zeros(len(rows))
        if self.model.objective == "rating":
            offset_R += self.model.mean
            if self.model.bias:
                users = Vectors.of(self._run().artifact("export"), "users")
                offset_R += users.column("bias")[rows]
        return offset_R

    def excluded_rows(self, rows: Rows, of: Side, *, seen: bool = False) -> ExcludedRows:
        """Rows to exclude for each query: an item itself; with `seen`, what a user has seen."""
        if of == "items":
            return ExcludedRows.of(np.arange(len(rows)), rows, len(rows))
        return self.seen.of(rows)[0] if seen else ExcludedRows.none(len(rows))

    def item_filter(self, filter: FilterLike) -> ItemFilter:
        """Prepare a filter for many searches.

        Raises:
            InputError: no item is left; no such column, or no metadata at all.
        """
        if isinstance(filter, ItemFilter):
            return filter
        if isinstance(filter, Mapping):
            rows = rows_with_metadata(
                ItemMetadata(self._run().artifact("events")), self.index, filter
            )
        else:
            rows = self._indexed_rows(filter)
            if not len(rows):
                raise InputError(
                    f"none of the {len(filter):,} items of the filter is in the index",
                    where=self.index.stored.artifact.storage.root,
                )
        gather = None
        if self.run is not None:
            gather = Vectors.of(self.run.artifact("export"), "items").gather
        return ItemFilter(np.unique(rows), gather)

    @functools.cached_property
    def seen(self) -> SeenItems:
        """Items that users have seen."""
        return SeenItems(Shards(self._run().artifact("shards")), self.model.fitted)

    @functools.cached_property
    def model(self) -> VectorSpec:
        """What the vectors are."""
        return spec_of(self._run().artifact("export"))

    def live(self, of: Side) -> NDArray[np.bool_]:
        """Which rows are live, bool [count]."""
        if of not in self._live:
            self._live[of] = Vectors.of(self._run().artifact("export"), of).live()
        return self._live[of]

    @functools.cached_property
    def _live(self) -> dict[str, NDArray[np.bool_]]:
        return {}

    def _matrix(self, of: Side, vectors: Vectors) -> Floats | None:
        """All vectors of a side as a memory map, opened once; None where there is none."""
        if of not in self._matrices:
            self._matrices[of] = vectors.matrix()
        return self._matrices[of]

    @functools.cached_property
    def _matrices(self) -> dict[str, Floats | None]:
        return {}

    def _run(self) -> Run:
        if self.run is None:
            raise InputError(
                "the index is open without its run: it can only be searched with vectors",
                where=self.index.stored.artifact.storage.root,
                todo="Open the run's folder",
            )
        return self.run

    def _checked_vectors(self, queries: Floats) -> Floats:
        """Vectors of the caller as float32 [B, D]."""
        dim = self.index.dim
        query_BD = queries[None] if queries.ndim == 1 else queries
        if query_BD.ndim != 2 or query_BD.shape[1] != dim or query_BD.dtype.kind not in "fiu":
            raise InputError(
                f"queries are {queries.dtype} {list(queries.shape)}, the index has vectors of "
                f"{dim} coordinates",
                todo=f"Give an array of numbers [B, {dim}]",
            )
        query_BD = np.ascontiguousarray(query_BD, np.float32)
        bad = np.flatnonzero(~np.isfinite(query_BD).all(axis=1))
        if len(bad):
            raise InputError(f"query {bad[0]} holds NaN or infinity")
        return query_BD

    def _rows_of_lists(self, exclude: IdLists, queries: int) -> ExcludedRows:
        """Lists of raw ids as rows; ids that are not in the index are no answers anyway."""
        if len(exclude) != queries:
            raise InputError(f"exclude has {len(exclude):,} lists for {queries:,} queries")
        owner = np.repeat(np.arange(len(exclude)), [len(ids) for ids in exclude])
        position = self._positions([raw for ids in exclude for raw in ids])
        indexed = position >= 0
        rows = self.index.row_N[position[indexed]]
        return ExcludedRows.of(owner[indexed], rows, len(exclude))

    def _indexed_rows(self, ids: Sequence[str]) -> Rows:
        position = self._positions(ids)
        return self.index.row_N[position[position >= 0]]

    def _positions(self, ids: Sequence[str]) -> Rows:
        return self.index.positions_of_ids(pa.array(list(ids), pa.string()))


def _examples(ids: Sequence[str], at: Sequence[int]) -> str:
    some = ", ".join(_quoted(ids[i]) for i in at[:3])
    return f"{some}, ..." if len(at) > 3 else some


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
