"""Recommendations for many users, to a Parquet file.

Legend: R ids of a piece, B users of a batch, k answers each, M answers in all.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from embedmill.pipeline.errors import ContractError
from embedmill.pipeline.index import ExcludedRows, ItemFilter, Retriever
from embedmill.pipeline.log import Progress
from embedmill.pipeline.query.folding import FoldedVectors
from embedmill.pipeline.store.storage import Storage
from embedmill.pipeline.views.vectors import Vectors

__all__ = [
    "SCHEMA",
    "BatchReport",
    "RecommendOptions",
    "recommend_all",
    "recommend_folded",
    "write_answers",
]

# A row for every answer; `rank` counts from 1.
SCHEMA = pa.schema(
    [
        pa.field("user", pa.string(), nullable=False),
        pa.field("rank", pa.int32(), nullable=False),
        pa.field("item", pa.string(), nullable=False),
        pa.field("score", pa.float32(), nullable=False),
    ]
)

# Outcomes of the ids of a batch, and what is said of them.
OUTCOMES = {
    "answered": "have answers",
    "nothing_left": "have seen all that may be answered",
    "repeated": "came more than once, and were answered once",
    "unknown": "are not in the vocabulary",
    "retired": "have a row that is retired",
    "held_out": "have held-out events alone, so that no vector was learned for them",
    "blank": "are empty",
}
# Of users of a file of events.
NO_KNOWN_ITEM = "no_known_item"
OF_EVENTS = {**OUTCOMES, NO_KNOWN_ITEM: "have no event with an item that the run has"}
_BATCH = 4096
_EXAMPLES = 3


@dataclass(frozen=True)
class RecommendOptions:
    """How to recommend.

    Attributes:
        k: answers for each user.
        exclude_seen: leave out items that the log has the user with.
        allowed: the items that may be answers; None for all.
    """

    k: int = 10
    exclude_seen: bool = True
    allowed: ItemFilter | None = None


@dataclass
class BatchReport:
    """The outcome of every id of a batch, with examples; `rows` answers were written."""

    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(OUTCOMES, 0))
    examples: dict[str, list[str]] = field(default_factory=dict)
    users_in: int = 0
    rows: int = 0
    outcomes: ClassVar[dict[str, str]] = OF_EVENTS

    def count(self, outcome: str, ids: pa.Array) -> None:
        """Count ids with this outcome; the first ones become its examples."""
        self.counts[outcome] = self.counts.get(outcome, 0) + len(ids)
        some = self.examples.setdefault(outcome, [])
        if len(some) < _EXAMPLES:
            some += ids[: _EXAMPLES - len(some)].to_pylist()

    def as_json(self) -> dict[str, int]:
        """All counts, flat."""
        return {"users_in": self.users_in, **self.counts, "rows": self.rows}


def recommend_all(
    retriever: Retriever,
    pieces: Iterable[pa.Array],
    output: str,
    options: RecommendOptions,
    progress: Progress,
) -> BatchReport:
    """Write the best items of each user to a Parquet file, in the order of the ids.

    Memory does not grow with the number of ids, except for a byte for each user of the run. The
    file appears under its name when it is complete; its metadata has the counts under "embedmill".

    Args:
        retriever: an open index with its run.
        pieces: raw ids of users, string [R] each.
        output: path or URL of the file.
        options: how to answer.
        progress: updated with the number of users done.

    Returns:
        the outcome of every id, counted.
    """
    folder, slash, name = output.rpartition("/")
    report = BatchReport()
    with (
        Storage(folder or slash or ".").writer(name) as raw,
        pq.ParquetWriter(raw, SCHEMA, compression="zstd") as out,
    ):
        for ids, rows in _known_users(retriever, pieces, report):
            for start in range(0, len(rows), _BATCH):
                at = slice(start, start + _BATCH)
                part = _answers(retriever, ids[at], rows[at], options, report)
                out.write_table(part)
                report.rows += part.num_rows
                progress.update(report.users_in, None, "users")
        if report.users_in != sum(report.counts.values()):
            raise ContractError(
                f"{report.users_in:,} users were asked for, {sum(report.counts.values()):,} are "
                "accounted for",
                where=output,
                todo="This is a bug; nothing was written",
            )
        out.add_key_value_metadata({"embedmill": json.dumps(report.as_json())})
    return report


def write_answers(answers: pa.Table, report: BatchReport, output: str) -> None:
    """Write answers (schema SCHEMA) as `recommend_all` does."""
    folder, slash, name = output.rpartition("/")
    table = answers.replace_schema_metadata({"embedmill": json.dumps(report.as_json())})
    with Storage(folder or slash or ".").writer(name) as raw:
        pq.write_table(table, raw, compression="zstd")


def _known_users(
    retriever: Retriever, pieces: Iterable[pa.Array], report: BatchReport
) -> Iterator[tuple[pa.Array, NDArray[np.int64]]]:
    """Ids and rows of the users that have a vector; the others are counted by outcome."""
    assert retriever.run is not None
    users = Vectors.of(retriever.run.artifact("export"), "users")
    live_N, seen_before_N = retriever.live("users"), np.zeros(users.count, bool)
    for piece in pieces:
        report.users_in += len(piece)
        ids = _without_ids(piece, pc.fill_null(pc.equal(piece, ""), True), "blank", report)
        rows = users.vocabulary.rows_of(ids)
        ids, rows = _without(ids, rows, rows < 0, "unknown", report)
        ids, rows = _without(ids, rows, ~live_N[rows], "retired", report)
        first = np.zeros(len(rows), bool)
        first[np.unique(rows, return_index=True)[1]] = True
        ids, rows = _without(ids, rows, ~first | seen_before_N[rows], "repeated", report)
        seen_before_N[rows] = True
        _, known = retriever.seen.of(rows)
        yield _without(ids, rows, ~known, "held_out", report)


def _without(
    ids: pa.Array,
    rows: NDArray[np.int64],
    wrong: NDArray[np.bool_],
    outcome: str,
    report: BatchReport,
) -> tuple[pa.Array, NDArray[np.int64]]:
    return _without_ids(ids, pa.array(wrong), outcome, report), rows[~wrong]


def _without_ids(ids: pa.Array, wrong: pa.Array, outcome: str, report: BatchReport) -> pa.Array:
    """The ids that are not wrong; the wrong ones are counted."""
    report.count(outcome, ids.filter(wrong))
    return ids.filter(pc.invert(wrong))


def _answers(
    retriever: Retriever,
    ids: pa.Array,
    row_B: NDArray[np.int64],
    options: RecommendOptions,
    report: BatchReport,
) -> pa.Table:
    """The rows of the file for a batch of users."""
    seen: ExcludedRows = retriever.excluded_rows(row_B, "users", seen=options.exclude_seen)
    query_BD, offset_B = retriever.query_vectors(row_B, "users"), retriever.rating_offsets(row_B)
    return _ranked(retriever, Queries(ids, query_BD, seen, offset_B), options, report)


@dataclass(frozen=True)
class Queries:
    """Users [B] to answer: ids, vectors float32 [B, D], excluded rows, and what is added to scores.

    Legend: B users, D coordinates.
    """

    ids: pa.Array
    query_BD: NDArray[np.float32]
    seen: ExcludedRows
    offset_B: NDArray[np.float64]


def recommend_folded(
    retriever: Retriever, vectors: FoldedVectors, options: RecommendOptions
) -> tuple[pa.Table, BatchReport]:
    """The best items of users who were folded in (schema SCHEMA), and their outcomes.

    Args:
        retriever: an open index with its run.
        vectors: of users, by the same run.
        options: how to answer; seen items are those of the events that made the vectors.
    """
    report, tables, spec = BatchReport(), [SCHEMA.empty_table()], retriever.model
    offset_U = np.zeros(len(vectors))
    if spec.objective == "rating":
        offset_U += spec.mean
        offset_U += 0.0 if vectors.folded.bias_U is None else vectors.folded.bias_U
    seen = ExcludedRows.none(len(vectors))
    if options.exclude_seen:
        seen = ExcludedRows.of(vectors.events.own_M, vectors.events.other_M, len(vectors))
    for start in range(0, len(vectors), _BATCH):
        at = slice(start, start + _BATCH)
        some = np.arange(len(vectors))[at]
        queries = Queries(
            vectors.ids[at], vectors.folded.vector_UE[at], seen.select(some), offset_U[at]
        )
        report.users_in += len(some)
        tables.append(_ranked(retriever, queries, options, report))
    found = pa.concat_tables(tables)
    report.rows = found.num_rows
    return found, report


def _ranked(
    retriever: Retriever, queries: Queries, options: RecommendOptions, report: BatchReport
) -> pa.Table:
    k = min(options.k, max(1, retriever.index.items))
    score_Bk, item_Bk = retriever.search_vectors(queries.query_BD, k, queries.seen, options.allowed)
    present_Bk = item_Bk >= 0
    answered = present_Bk.any(axis=1)
    report.count("answered", queries.ids.filter(pa.array(answered)))
    report.count("nothing_left", queries.ids.filter(pa.array(~answered)))
    owner_M, rank_M = np.nonzero(present_Bk)
    score_M = score_Bk[present_Bk] + queries.offset_B[owner_M]
    places = retriever.index.positions(item_Bk[present_Bk])
    columns = [
        queries.ids.take(pa.array(owner_M)),
        pa.array((rank_M + 1).astype(np.int32)),
        retriever.index.id_N.take(pa.array(places)),
        pa.array(score_M.astype(np.float32)),
    ]
    return pa.Table.from_arrays(columns, schema=SCHEMA)
