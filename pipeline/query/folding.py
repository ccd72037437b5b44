"""Vectors of users or items who are in no run, from a file of their events.

Legend: U rows folded in, E coordinates as exported.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from embedmill.pipeline.errors import ContractError, InputError
from embedmill.pipeline.extras import naming_extras
from embedmill.pipeline.query.event_files import read_event_file
from embedmill.pipeline.store.run import Run
from embedmill.pipeline.store.storage import Storage
from embedmill.pipeline.views.shards import Shards
from embedmill.pipeline.views.vectors import Vectors, spec_of

if TYPE_CHECKING:
    from embedmill.pipeline.train.fold_in import Folded, KnownEvents

__all__ = ["FoldedVectors", "fold", "write_folded"]

Side = Literal["users", "items"]
_SIDES: dict[Side, tuple[str, Side]] = {"users": ("user", "items"), "items": ("item", "users")}


@dataclass(frozen=True)
class FoldedVectors:
    """Vectors of ids, in order of the id.

    Attributes:
        ids: the raw ids, [U].
        count_U: known events of each, int64.
        folded: vectors float32 [U, E] as the run exports them, and biases.
        events: the known events: those with an id of the other side that the run has.
        counts: what became of every row of the file, `events_in` = `events` + `unknown` +
            `retired` and `ids_in` = `ids` + `without_events`.
        left_out: ids of the file without known events.
    """

    ids: pa.Array
    count_U: NDArray[np.int64]
    folded: Folded
    events: KnownEvents
    counts: Counter[str]
    left_out: pa.Array

    def to_arrow(self) -> pa.Table:
        """Columns `id`, `count`, `vector`, and `bias` where the model has biases."""
        vector_UE = self.folded.vector_UE
        columns = {
            "id": self.ids,
            "count": pa.array(self.count_U),
            "vector": pa.FixedSizeListArray.from_arrays(
                pa.array(vector_UE.ravel()), vector_UE.shape[1]
            ),
        }
        if self.folded.bias_U is not None:
            columns["bias"] = pa.array(self.folded.bias_U)
        return pa.table(columns)

    def to_numpy(self) -> NDArray[np.float32]:
        """The vectors alone, float32 [U, E], in the order of `ids`."""
        return self.folded.vector_UE

    def only(self, place: int) -> FoldedVectors:
        """The vector at one place alone."""
        at, mine = slice(place, place + 1), self.events.own_M == place
        bias_U = None if self.folded.bias_U is None else self.folded.bias_U[at]
        events = replace(
            self.events,
            own_M=np.zeros(int(mine.sum()), np.int64),
            other_M=self.events.other_M[mine],
            weight_M=self.events.weight_M[mine],
        )
        return replace(
            self,
            ids=self.ids[at],
            count_U=self.count_U[at],
            folded=replace(self.folded, vector_UE=self.folded.vector_UE[at], bias_U=bias_U),
            events=events,
        )

    def __len__(self) -> int:
        return len(self.ids)


def fold(run: Run, source: str | pa.Table, side: Side = "users") -> FoldedVectors:
    """Vectors of the users (or items) of a file of events, with the run's other side fixed.

    An id that is in the run gets a vector from the file's events alone, too.

    Args:
        run: a run with an export.
        source: path or URL of the events, or a table, with the columns of the run's log.
        side: whose vectors are made.

    Raises:
        InputError: `side` is neither; the file cannot be read; none of its events has an id of
            the other side that the run has.
    """
    with naming_extras("fold-in"):
        from embedmill.pipeline.train.fold_in import FoldIn, trained_with

    if side not in _SIDES:
        raise InputError(f"side is {side!r}", todo="Give 'users' or 'items'")
    own, other = _SIDES[side]
    table, counts = read_event_file(run.config.events, source)
    export = run.artifact("export")
    others = Vectors.of(export, other)
    ids, events = _known(table, own, others, counts)
    config, shards = trained_with(run.artifact("train"), run.config), Shards(run.artifact("shards"))
    folded = FoldIn.of(spec_of(export), config, shards, others, side).fold(events, len(ids))
    counts["ids"] = len(ids)
    counts["without_events"] = counts["ids_in"] - len(ids)
    count_U = np.bincount(events.own_M, minlength=len(ids))
    distinct = pc.unique(table[own].combine_chunks())
    left_out = distinct.filter(pc.invert(pc.is_in(distinct, ids)))
    return FoldedVectors(ids, count_U, folded, events, counts, left_out)


def _known(
    table: pa.Table, own: str, others: Vectors, counts: Counter[str]
) -> tuple[pa.Array, KnownEvents]:
    """The ids to fold in, in order, and their events whose other side the run has."""
    from embedmill.pipeline.train.fold_in import KnownEvents

    other = others.side.removesuffix("s")
    own_ids, other_ids = (table[name].combine_chunks().dictionary_encode() for name in (own, other))
    row_V = others.vocabulary.rows_of(other_ids.dictionary)
    live_V = (row_V >= 0) & others.live()[np.maximum(row_V, 0)]
    index_M = other_ids.indices.to_numpy()
    known_M = live_V[index_M]
    counts["events_in"], counts["ids_in"] = table.num_rows, len(own_ids.dictionary)
    counts["unknown"] = int((row_V[index_M] < 0).sum())
    counts["retired"] = int((~known_M).sum()) - counts["unknown"]
    counts["events"] = int(known_M.sum())
    if not known_M.any():
        raise InputError(
            f"no event has {'an' if other == 'item' else 'a'} {other} that the run has",
            where=others.export.storage.root,
            todo=f"Give events with ids of {other}s as the run's log has them",
        )
    own_U, own_M = np.unique(own_ids.indices.to_numpy()[known_M], return_inverse=True)
    ids = own_ids.dictionary.take(pa.array(own_U))
    order_U = pc.sort_indices(ids).to_numpy().astype(np.int64)
    place_U = np.empty_like(order_U)
    place_U[order_U] = np.arange(len(order_U))
    weight_M = table["weight"].to_numpy()[known_M]
    return ids.take(pa.array(order_U)), KnownEvents(
        place_U[own_M], row_V[index_M[known_M]], weight_M
    )


def write_folded(vectors: FoldedVectors, output: str) -> None:
    """Write `to_arrow` as a Parquet file, with the counts under "embedmill" in its metadata.

    Raises:
        ContractError: the counts do not add up.
    """
    counts = vectors.counts
    events = counts["events"] + counts["unknown"] + counts["retired"]
    if counts["events_in"] != events or len(vectors) != counts["ids"]:
        raise ContractError(
            f"{counts['events_in']:,} events came in, {events:,} are accounted for",
            where=output,
            todo="This is a bug; nothing was written",
        )
    folder, slash, name = output.rpartition("/")
    table = vectors.to_arrow().replace_schema_metadata({"embedmill": json.dumps(counts)})
    with Storage(folder or slash or ".").writer(name) as raw:
        pq.write_table(table, raw, compression="zstd")
