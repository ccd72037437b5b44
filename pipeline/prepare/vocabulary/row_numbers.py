"""Dense row numbers for ids in a total order, without sorting all ids in one place.

The order is by falling count, then by rising id (UTF-8 bytes). It is divided into ranges at
boundaries from a sample of the ids. One task sorts each range, which begins at the row at which
the ranges before it end. The boundaries only decide how even the work is; the rows are the same
wherever they lie.
"""

from __future__ import annotations

import bisect
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame

from embedmill.pipeline.prepare.engine.frames import (
    Batches,
    collect,
    concat_batches,
    group_by_key,
    map_batches,
)
from embedmill.pipeline.prepare.engine.task_report import TaskResults, run_tasks, task_report
from embedmill.pipeline.store.parquet import write_parquet
from embedmill.pipeline.store.storage import Storage
from embedmill.schemas.vocab import FILES, ROWS_PER_FILE, VOCAB

__all__ = ["ROWS", "assign_rows", "with_file_number", "write_rows"]

_RANGE_ROWS = 1 << 19  # rows of a range, about
_SAMPLE = 64  # sampled ids for each range
_ORDER = [("n", "descending"), ("id", "ascending")]
_RANGED = pa.schema([("id", pa.string()), ("n", pa.int64()), ("range", pa.int32())])
ROWS = pa.schema(
    [("row", pa.int64()), ("id", pa.string()), ("n", pa.int64()), ("missed", pa.int32())]
)
_NUMBERED = ROWS.append(pa.field("file", pa.int32()))
_NUMBERED_DDL = "row long, id string, n long, missed int, file int"
Key = tuple[int, bytes]  # (-count, id in UTF-8)


@dataclass(frozen=True)
class _Ranges:
    """Range k has the keys in [bounds[k-1], bounds[k]), and begins at row offsets[k]."""

    bounds: tuple[Key, ...]
    offsets: tuple[int, ...] = ()


def assign_rows(counts: DataFrame, rows: int, first: int = 0) -> DataFrame:
    """Number ids from `first` on; the result is for `write_rows`.

    Args:
        counts: columns id, n; distinct ids. It is read two or three times.
        rows: number of ids, at least 1.
        first: the first row.
    """
    ranges = _Ranges(_bounds(counts, rows), (first,))
    if ranges.bounds:
        ranges = _Ranges(ranges.bounds, _offsets(counts, ranges, first))
    ranged = _with_range(counts, ranges).repartition(len(ranges.offsets), "range")
    return map_batches(ranged, partial(_rank, ranges), _NUMBERED_DDL)


def with_file_number(rows: DataFrame) -> DataFrame:
    """Ids whose rows are known already (schema ROWS), for `write_rows`."""
    return rows.selectExpr(*ROWS.names, f"cast(row div {ROWS_PER_FILE} as int) as file")


def write_rows(numbered: DataFrame, rows: int, storage: Storage, side: str) -> TaskResults:
    """Write the files of a side (schema VOCAB), each with a contiguous range of rows.

    A row is live if it has an id and events.

    Args:
        numbered: from `assign_rows`, `with_file_number`, or a union of these; every row from 0 on
            once.
        rows: number of rows, at least 1.
        storage: the stage's folder.
        side: "user" or "item".

    Returns:
        the files, and a counter `events`, the sum of all counts.
    """
    files = numbered.repartition(-(-rows // ROWS_PER_FILE), "file")
    return run_tasks(files, partial(_write, storage, side))


def _bounds(counts: DataFrame, rows: int) -> tuple[Key, ...]:
    """Boundaries of ranges of about _RANGE_ROWS rows, from a sample of ids drawn by their hash."""
    ranges = -(-rows // _RANGE_ROWS)
    if ranges < 2:
        return ()
    share = max(1, rows // (ranges * _SAMPLE))
    sample = collect(counts.where(f"pmod(xxhash64(id), {share}) = 0").select("id", "n"))
    keys = sorted(
        (-n, i.encode()) for n, i in zip(*(sample[c].to_pylist() for c in ("n", "id")), strict=True)
    )
    picked = [keys[len(keys) * k // ranges] for k in range(1, ranges)] if keys else []
    return tuple(dict.fromkeys(picked))


def _offsets(counts: DataFrame, ranges: _Ranges, first: int) -> tuple[int, ...]:
    """The first row of each range; that of range 0 is `first`."""
    sizes = np.zeros(len(ranges.bounds) + 1, np.int64)
    table = collect(_with_range(counts, ranges).groupBy("range").count())
    sizes[table["range"].to_numpy()] = table["count"].to_numpy()
    return tuple((first + np.cumsum(sizes) - sizes).tolist())


def _with_range(counts: DataFrame, ranges: _Ranges) -> DataFrame:
    """Ids and counts with the number of their range."""
    return map_batches(counts, partial(_add_range, ranges), "id string, n long, range int")


def _add_range(ranges: _Ranges, batches: Batches) -> Batches:
    for batch in batches:
        table = pa.Table.from_batches([batch]).select(["id", "n"])
        table = table.take(pc.sort_indices(table, _ORDER)).combine_chunks()
        numbers = _range_of(table, ranges.bounds)
        table = table.append_column("range", pa.array(numbers, pa.int32()))
        yield from table.cast(_RANGED).to_batches()


def _range_of(table: pa.Table, bounds: tuple[Key, ...]) -> npt.NDArray[np.int64]:
    """The range of each row of a sorted table."""
    ids, counts = table["id"], table["n"]

    def key(row: int) -> Key:
        return -counts[row].as_py(), ids[row].as_py().encode()

    ends = [bisect.bisect_left(range(table.num_rows), bound, key=key) for bound in bounds]
    return np.searchsorted(np.array(ends, np.int64), np.arange(table.num_rows), side="right")


def _rank(ranges: _Ranges, batches: Batches) -> Batches:
    """The ids of each range in order, with their rows."""
    for number, rows in group_by_key(concat_batches(batches, _RANGED), "range"):
        ordered = rows.take(pc.sort_indices(rows, _ORDER)).combine_chunks()
        first = ranges.offsets[number]
        row = np.arange(first, first + ordered.num_rows, dtype=np.int64)
        missed = pa.array(np.zeros(len(row), np.int32))
        file = pa.array(row // ROWS_PER_FILE)
        columns = [pa.array(row), ordered["id"], ordered["n"], missed, file]
        table = pa.table(dict(zip(_NUMBERED.names, columns, strict=True)))
        yield from table.cast(_NUMBERED).to_batches(1 << 16)


def _write(storage: Storage, side: str, batches: Batches) -> Batches:
    """Write each file, sorted by row."""
    for number, rows in group_by_key(concat_batches(batches, _NUMBERED), "file"):
        ordered = rows.sort_by("row")
        live = pc.and_(pc.is_valid(ordered["id"]), pc.greater(ordered["n"], 0))
        columns = [*(ordered[c] for c in ROWS.names), live]
        table = pa.Table.from_arrays(columns, schema=VOCAB).combine_chunks()
        entry = write_parquet(storage, "vocab", FILES[f"{side}s"].path(number), table)
        yield task_report(entry, {"events": pc.sum(table["count"]).as_py() or 0})
