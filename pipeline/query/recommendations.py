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
from embedmill.pipeline.index import ItemFilter, Retriever
from embedmill.pipeline.log import Progress
from embedmill.pipeline.score import RowLists
from embedmill.pipeline.store.storage import Storage
from embedmill.pipeline.views.vectors import Vectors

__all__ = ["SCHEMA", "Asked", "Told", "recommend_all"]

# A row for every answer; `rank` counts from 1.
SCHEMA = pa.schema(
    [
        pa.field("user", pa.string(), nullable=False),
        pa.field("rank", pa.int32(), nullable=False),
        pa.field("item", pa.string(), nullable=False),
        pa.field("score", pa.float32(), nullable=False),
    ]
)

# What becomes of an id that is asked for.
FATES = {
    "answered": "have answers",
    "nothing_left": "have seen all that may be answered",
    "repeated": "came more than once, and were answered once",
    "unknown": "are not in the vocabulary",
    "retired": "have a row that is retired",
    "held_out": "have held-out events alone, so that no vector was learned for them",
    "blank": "are empty",
}
_BATCH = 4096
_EXAMPLES = 3


@dataclass(frozen=True)
class Asked:
    """How to answer: `k` each, without items that were seen, among those that are allowed."""

    k: int = 10
    exclude_seen: bool = True
    allowed: ItemFilter | None = None


@dataclass
class Told:
    """What became of every id asked for, with some examples; `rows` answers were written."""

    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(FATES, 0))
    examples: dict[str, list[str]] = field(default_factory=dict)
    users_in: int = 0
    rows: int = 0
    fates: ClassVar[dict[str, str]] = FATES

    def count(self, fate: str, ids: pa.Array) -> None:
        """So many met this fate."""
        self.counts[fate] += len(ids)
        some = self.examples.setdefault(fate, [])
        if len(some) < _EXAMPLES:
            some += ids[: _EXAMPLES - len(some)].to_pylist()

    def as_json(self) -> dict[str, int]:
        """All counts, flat."""
        return {"users_in": self.users_in, **self.counts, "rows": self.rows}


def recommend_all(
    retriever: Retriever, pieces: Iterable[pa.Array], output: str, asked: Asked, progress: Progress
) -> Told:
    """Write the best items of each user to a Parquet file, in the order of the ids.

    Nothing that grows with the ids is in memory but a bit for each user of the run. The file is
    under its name when all is written; its metadata has the counts under "embedmill".

    Args:
        retriever: an open index with its run.
        pieces: raw ids of users, string [R] each.
        output: path or URL of the file.
        asked: how to answer.
        progress: hears of users done.

    Returns:
        what became of every id; none is dropped without being counted.
    """
    folder, slash, name = output.rpartition("/")
    told = Told()
    with (
        Storage(folder or slash or ".").writer(name) as raw,
        pq.ParquetWriter(raw, SCHEMA, compression="zstd") as out,
    ):
        for ids, rows in _askable(retriever, pieces, told):
            for start in range(0, len(rows), _BATCH):
                at = slice(start, start + _BATCH)
                part = _answers(retriever, ids[at], rows[at], asked, told)
                out.write_table(part)
                told.rows += part.num_rows
                progress.update(told.users_in, None, "users")
        if told.users_in != sum(told.counts.values()):
            raise ContractError(
                f"{told.users_in:,} users were asked for, {sum(told.counts.values()):,} are "
                "accounted for",
                where=output,
                todo="This is a bug; nothing was written",
            )
        out.add_key_value_metadata({"embedmill": json.dumps(told.as_json())})
    return told


def _askable(
    retriever: Retriever, pieces: Iterable[pa.Array], told: Told
) -> Iterator[tuple[pa.Array, NDArray[np.int64]]]:
    """Ids and rows of users that can be answered; the others are counted."""
    assert retriever.run is not None
    users = Vectors.of(retriever.run.artifact("export"), "users")
    live_N, before_N = retriever.live("users"), np.zeros(users.count, bool)
    for piece in pieces:
        told.users_in += len(piece)
        ids = _sifted(piece, pc.fill_null(pc.equal(piece, ""), True), "blank", told)
        rows = users.vocabulary.rows_of(ids)
        ids, rows = _without(ids, rows, rows < 0, "unknown", told)
        ids, rows = _without(ids, rows, ~live_N[rows], "retired", told)
        first = np.zeros(len(rows), bool)
        first[np.unique(rows, return_index=True)[1]] = True
        ids, rows = _without(ids, rows, ~first | before_N[rows], "repeated", told)
        before_N[rows] = True
        _, known = retriever.seen.of(rows)
        yield _without(ids, rows, ~known, "held_out", told)


def _without(
    ids: pa.Array, rows: NDArray[np.int64], wrong: NDArray[np.bool_], fate: str, told: Told
) -> tuple[pa.Array, NDArray[np.int64]]:
    return _sifted(ids, pa.array(wrong), fate, told), rows[~wrong]


def _sifted(ids: pa.Array, wrong: pa.Array, fate: str, told: Told) -> pa.Array:
    """The ids that are not wrong; the wrong ones are counted."""
    told.count(fate, ids.filter(wrong))
    return ids.filter(pc.invert(wrong))


def _answers(
    retriever: Retriever, ids: pa.Array, row_B: NDArray[np.int64], asked: Asked, told: Told
) -> pa.Table:
    """A batch's rows of the file."""
    k = min(asked.k, max(1, retriever.index.items))
    seen: RowLists = retriever.excluded_rows(row_B, "users", seen=asked.exclude_seen)
    score_Bk, item_Bk = retriever.search_vectors(
        retriever.query_vectors(row_B, "users"), k, seen, asked.allowed
    )
    held_Bk = item_Bk >= 0
    some = held_Bk.any(axis=1)
    told.count("answered", ids.filter(pa.array(some)))
    told.count("nothing_left", ids.filter(pa.array(~some)))
    owner_M, rank_M = np.nonzero(held_Bk)
    score_M = score_Bk[held_Bk] + retriever.rating_offsets(row_B)[owner_M]
    places = retriever.index.positions(item_Bk[held_Bk])
    columns = [
        ids.take(pa.array(owner_M)),
        pa.array((rank_M + 1).astype(np.int32)),
        retriever.index.id_N.take(pa.array(places)),
        pa.array(score_M.astype(np.float32)),
    ]
    return pa.Table.from_arrays(columns, schema=SCHEMA)
