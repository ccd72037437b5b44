"""An open index: asked with vectors or raw ids, it answers with raw ids.

Legend: B queries, K answers each, A allowed items, R ids, D coordinates.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from embedmill.pipeline.errors import InputError
from embedmill.pipeline.index.contract import Floats, Rows, threads
from embedmill.pipeline.index.retrieval.categories import rows_where
from embedmill.pipeline.index.retrieval.item_filter import Allowed
from embedmill.pipeline.index.retrieval.row_search import IndexReader, nothing
from embedmill.pipeline.index.retrieval.seen_items import Seen
from embedmill.pipeline.score import RowLists
from embedmill.pipeline.store.cache import checked
from embedmill.pipeline.store.run import Run
from embedmill.pipeline.views.vectors import RANGE, Spec, Vectors

__all__ = ["Answers", "Filter", "Reader", "Side"]

Side = Literal["users", "items"]
# Values of columns of the item metadata, raw ids of items, or what `Reader.allow` made of them.
Filter = Mapping[str, str | Sequence[str]] | Sequence[str] | Allowed

Queries = Floats | Sequence[str]
Lists = Sequence[Sequence[str]]

# Kinds of numpy's types: an array of these has ids.
_TEXTS = "OUST"
# Queries searched for at once.
_BATCH = 4096


@dataclass(frozen=True)
class Answers:
    """Scores float32 [B, k] falling and rows int64 [B, k]; -inf and -1 where there are no more."""

    scores: Floats
    rows: Rows
    index: IndexReader = field(repr=False)

    @functools.cached_property
    def ids(self) -> list[list[str]]:
        """Raw ids, best first; a list is shorter where there are no more."""
        flat = iter(self.index.ids(self.rows[self.rows >= 0]))
        return [[next(flat) for _ in range(n)] for n in (self.rows >= 0).sum(axis=1).tolist()]


@dataclass(frozen=True)
class Reader:
    """An open index; with its run at hand it knows users, vectors and categories too."""

    index: IndexReader
    run: Run | None

    def search(
        self,
        queries: Queries,
        k: int = 10,
        *,
        of: Side = "items",
        filter: Filter | None = None,
        exclude: Literal["seen"] | Lists | None = None,
        cores: int = 0,
    ) -> Answers:
        """The k items of largest inner product with each query.

        Args:
            queries: vectors, float [B, D], or B raw ids.
            k: answers wanted; of a smaller catalogue all are given.
            of: what the ids are of. An item is asked with its own vector (without its bias) and
                is not its own answer; a user with its vector.
            filter: which items may be answered: {"categories": ["Drama", "Comedy"]} for those
                that have one of these values in a column of the item metadata (of several
                columns: in each), or raw ids of items. `allow` prepares one for many searches.
            exclude: "seen" leaves out what the log has each user with, in any split; or raw
                ids of items for each query.
            cores: that search; 0 for all.

        Raises:
            InputError: vectors of another dimension or not finite, ids that are unknown,
                retired or were never trained, a filter that leaves no item.
        """
        if k < 1:
            raise InputError(f"k is {k}", todo="Ask for at least one answer")
        k, allowed = (
            min(k, max(1, self.index.items)),
            None if filter is None else self.allow(filter),
        )
        found = [nothing(0, k)]
        with threads(cores):
            for query_BD, barred in self._batches(queries, of, exclude):
                found.append(self.ranked(query_BD, k, barred, allowed))
        scores, rows = (np.concatenate(parts) for parts in zip(*found, strict=True))
        return Answers(scores, rows, self.index)

    def _batches(
        self, queries: Queries, of: Side, exclude: Literal["seen"] | Lists | None
    ) -> Iterator[tuple[Floats, RowLists]]:
        """Vectors of some queries, and what may not be answered to each."""
        given, rows = None, np.empty(0, np.int64)
        if isinstance(queries, np.ndarray) and queries.dtype.kind not in _TEXTS:
            given = self._vectors(queries)
        else:
            rows = self.rows_of(queries if isinstance(queries, str) else list(queries), of)
        if exclude == "seen" and (given is not None or of != "users"):
            raise InputError('exclude is "seen", which needs ids of users (of="users")')
        if given is None and of == "users":
            self.check_known(rows)
        count = len(rows) if given is None else len(given)
        listed = None if exclude is None or exclude == "seen" else self._barred(exclude, count)
        for start in range(0, count, _BATCH):
            at = slice(start, start + _BATCH)
            if given is None:
                query_BD = self.vectors(rows[at], of)
                barred = self.own(rows[at], of, seen=exclude == "seen")
            else:
                query_BD, barred = given[at], _no_lists(len(given[at]))
            if listed is not None:
                barred = _both(barred, listed.select(torch.arange(count)[at]))
            yield query_BD, barred

    def ranked(
        self, query_BD: Floats, k: int, barred: RowLists, allowed: Allowed | None = None
    ) -> tuple[Floats, Rows]:
        """Scores and rows [B, k] outside each query's list; all that `search` does is this."""
        if allowed is not None:
            return allowed.search(self.index, query_BD, k, barred)
        return self.index.unseen(query_BD, k, barred)

    def rows_of(self, raw: Sequence[str], of: Side) -> Rows:
        """Rows of raw ids, int64 [R].

        Raises:
            InputError: unknown or retired ones.
        """
        if isinstance(raw, str) or not all(isinstance(one, str) for one in raw):
            raise InputError(
                "queries are neither an array of numbers nor a list of ids",
                todo='Give ids as texts: ["7"], not "7" or [7]',
            )
        vectors = Vectors.of(self._run().artifact("export"), of)
        rows = vectors.rows_of(pa.array(raw, pa.string()))
        unknown = np.flatnonzero(rows < 0).tolist()
        if len(unknown) == 1:
            vectors.find(raw[unknown[0]])  # raises, and names some alike
        if unknown:
            raise InputError(
                f"{len(unknown):,} of {len(raw):,} {of} are unknown: {_named(raw, unknown)}",
                where=vectors.export.storage.root,
                todo=f"Give ids of {of} as the log has them",
            )
        for row in rows[~self.live(of)[rows]][:1].tolist():
            vectors.check_live(row)
        return rows

    def check_known(self, rows: Rows) -> None:
        """Raise InputError where no vector was learned for a user, as all events are held out."""
        _, known = self.seen.of(rows)
        if not known.all():
            export = self._run().artifact("export")
            (raw,) = Vectors.of(export, "users").ids(rows[~known][:1])
            others = f", and of {(~known).sum() - 1:,} more" if (~known).sum() > 1 else ""
            raise InputError(
                f"all events of user {_quoted(raw)}{others} are held out, so no vector was "
                "learned for it",
                where=self._run().storage.root,
            )

    def vectors(self, rows: Rows, of: Side) -> Floats:
        """What rows are asked with, float32 [R, D]."""
        export = self._run().artifact("export")
        vectors, path = Vectors.of(export, of), f"{of}.npy"
        scattered = len(np.unique(rows // RANGE)) > 1
        if scattered and export.has(path) and export.storage.is_local:
            if of not in self._mapped:
                table = np.load(checked(export, path), mmap_mode="r", allow_pickle=False)
                self._mapped[of] = table
            found_RD = np.array(self._mapped[of][rows], np.float32)
        else:
            found_RD = vectors.gather(rows)
        if of == "items" and self.model.bias:
            found_RD[:, -1] = 0  # a user's is 1: the bias of the asked item says nothing here
        return found_RD

    def base(self, rows: Rows) -> NDArray[np.float64]:
        """What a rating of each user has beside the inner product, float64 [R]; else 0."""
        base_R = np.zeros(len(rows))
        if self.model.objective == "rating":
            base_R += self.model.mean
            if self.model.bias:
                users = Vectors.of(self._run().artifact("export"), "users")
                base_R += users.column("bias")[rows]
        return base_R

    def own(self, rows: Rows, of: Side, *, seen: bool = False) -> RowLists:
        """What may not be answered to each of `rows`: an item itself, what a user has met."""
        if of == "items":
            return RowLists.of(torch.arange(len(rows)), torch.from_numpy(rows), len(rows))
        return self.seen.of(rows)[0] if seen else _no_lists(len(rows))

    def allow(self, filter: Filter) -> Allowed:
        """The items that a filter leaves.

        Raises:
            InputError: none is left; no such column, or no metadata at all.
        """
        if isinstance(filter, Allowed):
            return filter
        if isinstance(filter, Mapping):
            rows = rows_where(self._run().artifact("events"), self.index, filter)
        else:
            rows = self._rows_in_index(filter)
            if not len(rows):
                raise InputError(
                    f"none of the {len(filter):,} items of the filter is in the index",
                    where=self.index.artifact.storage.root,
                )
        gather = None
        if self.run is not None:
            gather = Vectors.of(self.run.artifact("export"), "items").gather
        return Allowed(np.unique(rows), gather)

    @functools.cached_property
    def seen(self) -> Seen:
        """What users have met."""
        return Seen(self._run().artifact("shards"), self.model.fitted)

    @functools.cached_property
    def model(self) -> Spec:
        """What the vectors are."""
        return Spec.of(self._run().artifact("export"))

    def live(self, of: Side) -> NDArray[np.bool_]:
        """Which rows are in use, bool [count]."""
        if of not in self._live:
            self._live[of] = Vectors.of(self._run().artifact("export"), of).live()
        return self._live[of]

    @functools.cached_property
    def _live(self) -> dict[str, NDArray[np.bool_]]:
        return {}

    @functools.cached_property
    def _mapped(self) -> dict[str, Floats]:
        return {}

    def _run(self) -> Run:
        if self.run is None:
            raise InputError(
                "the index stands alone, without its run: it can be asked with vectors only",
                where=self.index.artifact.storage.root,
                todo="Open the run's folder",
            )
        return self.run

    def _vectors(self, queries: Floats) -> Floats:
        """Given vectors as float32 [B, D]."""
        dim = int(self.index.spec["dim"])
        query_BD = queries[None] if queries.ndim == 1 else queries
        if query_BD.ndim != 2 or query_BD.shape[1] != dim or query_BD.dtype.kind not in "fiu":
            raise InputError(
                f"queries are {queries.dtype} {list(queries.shape)}, the index has vectors of "
                f"{dim} coordinates",
                todo=f"Give an array of numbers [B, {dim}]",
            )
        query_BD = np.ascontiguousarray(query_BD, np.float32)
        wrong = np.flatnonzero(~np.isfinite(query_BD).all(axis=1))
        if len(wrong):
            raise InputError(f"query {wrong[0]} holds NaN or infinity")
        return query_BD

    def _barred(self, exclude: Lists, queries: int) -> RowLists:
        """Lists of raw ids as rows; those that are not in the index cannot be answered anyway."""
        if len(exclude) != queries:
            raise InputError(f"exclude has {len(exclude):,} lists for {queries:,} queries")
        owner = np.repeat(np.arange(len(exclude)), [len(one) for one in exclude])
        place = self._places([raw for one in exclude for raw in one])
        kept = place >= 0
        rows = self.index.row_N[place[kept]]
        return RowLists.of(torch.from_numpy(owner[kept]), torch.from_numpy(rows), len(exclude))

    def _rows_in_index(self, raw: Sequence[str]) -> Rows:
        place = self._places(raw)
        return self.index.row_N[place[place >= 0]]

    def _places(self, raw: Sequence[str]) -> Rows:
        return self.index.places_of(pa.array(list(raw), pa.string()))


def _no_lists(queries: int) -> RowLists:
    empty = torch.empty(0, dtype=torch.int64)
    return RowLists.of(empty, empty, queries)


def _both(one: RowLists, other: RowLists) -> RowLists:
    users = torch.cat((one.users(), other.users()))
    return RowLists.of(users, torch.cat((one.rows, other.rows)), len(one.lengths))


def _named(raw: Sequence[str], at: Sequence[int]) -> str:
    some = ", ".join(_quoted(raw[i]) for i in at[:3])
    return f"{some}, ..." if len(at) > 3 else some


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
