"""Answers for one user or one item of a finished run.

Legend: B = 1 query, N items of a block, D coordinates.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from embedmill.pipeline.errors import InputError
from embedmill.pipeline.index import (
    ExcludedRows,
    FilterLike,
    Retriever,
    SearchResults,
    exact_search,
    retriever_of,
)
from embedmill.pipeline.query.folding import fold
from embedmill.pipeline.query.recommendations import (
    NO_KNOWN_ITEM,
    BatchReport,
    RecommendOptions,
    recommend_folded,
    write_answers,
)
from embedmill.pipeline.store.artifact import Artifact
from embedmill.pipeline.store.run import Run
from embedmill.pipeline.views.items import ItemMetadata
from embedmill.pipeline.views.vectors import Vectors

__all__ = [
    "Hit",
    "is_user",
    "neighbors",
    "recommend",
    "recommend_from_events",
    "write_recommendations_from_events",
]


@dataclass(frozen=True)
class Hit:
    """An answer: raw id, row, and its score (a predicted rating, an inner product, a cosine)."""

    item: str
    row: int
    score: float


def recommend(
    run: Run, user: str, k: int = 10, *, exclude_seen: bool = True, filter: FilterLike | None = None
) -> list[Hit]:
    """The best items for a user, through the index, best first.

    Args:
        run: a finished run.
        user: the raw id.
        k: answers wanted; there are fewer if fewer items can be answers.
        exclude_seen: leave out every item that the log has the user with, in any split.
        filter: which items may be answered; see `embedmill.pipeline.index.Retriever.search`.

    Raises:
        InputError: no such user (names some alike), one that training never saw, or one whose
            row is retired; a filter that leaves nothing.
    """
    retriever = retriever_of(run)
    seen: Literal["seen"] | None = "seen" if exclude_seen else None
    found = retriever.search([user], k, of="users", filter=filter, exclude=seen)
    return _hits(found, float(retriever.rating_offsets(retriever.rows_of([user], "users"))[0]))


def recommend_from_events(
    run: Run, source: str | pa.Table, user: str, options: RecommendOptions
) -> list[Hit]:
    """The best items for a user of a file of events, whose vector is folded in, best first.

    Args:
        run: a finished run, which need not have the user.
        source: the events; see `embedmill.pipeline.query.folding.fold`.
        user: the raw id.
        options: how to answer; seen items are those of the file.

    Raises:
        InputError: the file has no events of this user with items that the run has.
    """
    vectors = fold(run, source)
    place = pc.index(vectors.ids, user).as_py()
    if place < 0:
        raise InputError(
            f"no event of user {_quoted(user)} has an item that the run has",
            where=source if isinstance(source, str) else "",
            todo="Give the user's id as the file has it",
        )
    found, _ = recommend_folded(retriever_of(run), vectors.only(place), options)
    items, scores = found["item"].to_pylist(), found["score"].to_pylist()
    rows = Vectors.of(run.artifact("export"), "items").vocabulary.rows_of(pa.array(items))
    return [Hit(*hit) for hit in zip(items, rows.tolist(), scores, strict=True)]


def write_recommendations_from_events(
    run: Run, source: str | pa.Table, output: str, options: RecommendOptions
) -> BatchReport:
    """Write the best items of all users of a file of events, whose vectors are folded in.

    Args:
        run: a finished run.
        source: the events.
        output: path or URL of the Parquet file (schema `recommendations.SCHEMA`).
        options: how to answer; seen items are those of the file.
    """
    vectors = fold(run, source)
    found, report = recommend_folded(retriever_of(run), vectors, options)
    report.count(NO_KNOWN_ITEM, vectors.left_out)
    report.users_in += len(vectors.left_out)
    write_answers(found, report, output)
    return report


def is_user(run: Run, text: str) -> bool:
    """Whether a text is the raw id of a user in the vocabulary of a finished run."""
    vocabulary = Vectors.of(run.artifact("export"), "users").vocabulary
    return bool(vocabulary.rows_of(pa.array([text], pa.string()))[0] >= 0)


def neighbors(run: Run, item: str, k: int = 10, *, filter: FilterLike | None = None) -> list[Hit]:
    """The items nearest to an item by the cosine of the model's vectors, best first.

    If vectors have unit length, the index finds the items and their cosines are computed from the
    vectors. Otherwise the index, which ranks by inner product, cannot find them: every item is
    compared.

    Args:
        run: a finished run.
        item: the raw id, or a title in the item metadata (upper and lower case alike).
        k: answers wanted; there are fewer if fewer items can be answers.
        filter: which items may be answered; see `embedmill.pipeline.index.Retriever.search`.

    Raises:
        InputError: no such item (names some alike), or one whose row is retired; a filter that
            leaves nothing.
    """
    _check_k(k)
    retriever = retriever_of(run)
    items = Vectors.of(run.artifact("export"), "items")
    row = np.array([_find_item(run, items, item)])
    items.vocabulary.check_live(int(row[0]))
    if retriever.model.similarity != "cosine" or retriever.model.bias:
        return _compared(retriever, items, row, k, filter)
    allowed = None if filter is None else retriever.item_filter(filter)
    _, row_Bk = retriever.search_vectors(
        retriever.query_vectors(row, "items"),
        min(k, retriever.index.items),
        retriever.excluded_rows(row, "items"),
        allowed,
    )
    rows = row_Bk[0][row_Bk[0] >= 0]
    score = items.gather(rows) @ items.gather(row)[0]
    order = np.lexsort((rows, -score))
    return _hits(SearchResults(score[order][None], rows[order][None], retriever.index))


def _compared(
    retriever: Retriever, items: Vectors, row: NDArray[np.int64], k: int, filter: FilterLike | None
) -> list[Hit]:
    """The nearest items, by comparing every item."""
    dim = retriever.model.model_dim

    def blocks() -> Iterator[tuple[int, NDArray[np.float32]]]:
        for first, block_ND in items.blocks():
            yield first, _unit(block_ND[:, :dim])

    kept = items.live()
    if filter is not None:
        kept &= np.isin(np.arange(items.count), retriever.item_filter(filter).row_A)
    itself = ExcludedRows.of(np.zeros(1, np.int64), row, 1)
    query_BD = _unit(items.gather(row)[:, :dim])
    found = exact_search(query_BD, blocks(), k, itself, np.flatnonzero(~kept))
    return _hits(SearchResults(*found, retriever.index))


def _check_k(k: int) -> None:
    if k < 1:
        raise InputError(f"k is {k}", todo="Ask for at least one answer")


def _find_item(run: Run, items: Vectors, item: str) -> int:
    try:
        return items.vocabulary.row_of(item)
    except InputError:
        raw, alike = _by_title(run.artifact("events"), item)
        if raw is not None:
            return items.vocabulary.row_of(raw)
        if not alike:
            raise
        named = ", ".join(map(_quoted, alike))
        raise InputError(
            f"no item has the id or the title {_quoted(item)}",
            where=run.storage.root,
            todo=f"Did you mean {named}?",
        ) from None


def _by_title(events: Artifact, title: str) -> tuple[str | None, list[str]]:
    """The first item of this title, and titles that look like it where there is none."""
    table = ItemMetadata(events).table(["item", "title"])
    titles = table["title"].to_pylist()
    for raw, one in zip(table["item"].to_pylist(), titles, strict=True):
        if one.casefold() == title.casefold():
            return raw, []
    inside = [one for one in titles if title.casefold() in one.casefold()]
    return None, inside[:3] or difflib.get_close_matches(title, titles, 3, 0.6)


def _unit(vector_ND: NDArray[np.float32]) -> NDArray[np.float32]:
    """The vectors scaled to unit length; a zero vector stays zero, its cosine with any is 0."""
    norm_N1 = np.linalg.norm(vector_ND, axis=1, keepdims=True)
    unit_ND: NDArray[np.float32] = vector_ND / np.maximum(norm_N1, np.float32(1e-30))
    return unit_ND


def _hits(found: SearchResults, base: float = 0.0) -> list[Hit]:
    """The answers to a search with one query; `base` is added to their scores."""
    rows, scores = found.rows[0], found.scores[0]
    return [
        Hit(raw, int(row), float(score) + base)
        for raw, row, score in zip(found.ids[0], rows, scores, strict=False)
    ]


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
