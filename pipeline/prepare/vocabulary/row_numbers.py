"""Dense rows in a total order, without sorting everything in one place.

Order: count falling, then id rising in UTF-8 byte order. Ranges of this order are cut at
boundaries taken from a sample; each range is sorted by one task and begins at the row where
the ranges before it end. The boundaries decide only how even the work is: rows are the same
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
from embedmill.pipeline.prepare.engine.task_report import (
    TaskResults,
    run_tasks,
    task_report,
)
from embedmill.pipeline.store.parquet import write_parquet
from embedmill.pipeline.store.storage import Storage
from embedmill.schemas.vocab import VOCAB

__all__ = ["FILE_ROWS", "ROWS", "placed", "ranked", "write_rows"]

FILE_ROWS = 1 << 20
_RANGE_ROWS = 1 << 19  # wanted in a range
_SAMPLE = 64  # sampled ids per range
_ORDER = [("n", "descending"), ("id", "ascending")]
_RANGED = pa.schema([("id", pa.string()), ("n", pa.int64()), ("range", pa.int32())])
ROWS = pa.schema(
    [("row", pa.int64()), ("id", pa.string()), ("n", pa.int64()), ("missed", pa.int32())]
)
_ROWS = ROWS.append(pa.field("file", pa.int32()))
_ROWS_DDL = "row long, id string, n long, missed int, file int"
Key = tuple[int, bytes]  # (-count, id in UTF-8)


@dataclass(frozen=True)
class _Ranges:
    """Range k holds keys in [bounds[k-1], bounds[k]); it begins at row offsets[k]."""

    bounds: tuple[Key, ...]
    offsets: tuple[int, ...] = ()


def ranked(counts: DataFrame, rows: int, first: int = 0) -> DataFrame:
    """Ids with their rows, for `write_rows`.

    Args:
        counts: columns id, n; distinct ids; read twice or thrice.
        rows: how many there are, at least 1.
        first: the row to begin with.
    """
    ranges = _Ranges(_bounds(counts, rows), (first,))
    if ranges.bounds:
        ranges = _Ranges(ranges.bounds, _offsets(counts, ranges, first))
    ranged = map_batches(counts, partial(_assign, ranges), "id string, n long, range int")
    return map_batches(
        ranged.repartition(len(ranges.offsets), "range"), partial(_rank, ranges), _ROWS_DDL
    )


def placed(frame: DataFrame) -> DataFrame:
    """Rows that are known already (columns ROWS), for `write_rows`."""
    return frame.selectExpr(*ROWS.names, f"cast(row div {FILE_ROWS} as int) as file")


def write_rows(frame: DataFrame, rows: int, storage: Storage, side: str) -> TaskResults:
    """Write <side>s/part-NNNNN.parquet (schema VOCAB), each a contiguous range of rows.

    A row is live where it has an id and events.

    Args:
        frame: of `ranked`, of `placed`, or a union of these; every row from 0 on once.
        rows: how many there are, at least 1.
        storage: the stage's folder.
        side: "user" or "item".

    Returns:
        the files, and `events`, the sum of all counts.
    """
    files = -(-rows // FILE_ROWS)
    return run_tasks(frame.repartition(files, "file"), partial(_write, storage, side))


def _bounds(counts: DataFrame, rows: int) -> tuple[Key, ...]:
    """Boundaries of ranges of about _RANGE_ROWS rows, from ids sampled by their hash."""
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
    """The first row of each range, that of the first one given."""
    sizes = np.zeros(len(ranges.bounds) + 1, np.int64)
    table = collect(
        map_batches(counts, partial(_assign, ranges), "id string, n long, range int")
        .groupBy("range")
        .count()
    )
    sizes[table["range"].to_numpy()] = table["count"].to_numpy()
    return tuple((first + np.cumsum(sizes) - sizes).tolist())


def _assign(ranges: _Ranges, batches: Batches) -> Batches:
    """Each row with its range."""
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

    cuts = [bisect.bisect_left(range(table.num_rows), bound, key=key) for bound in bounds]
    return np.searchsorted(np.array(cuts, np.int64), np.arange(table.num_rows), side="right")


def _rank(ranges: _Ranges, batches: Batches) -> Batches:
    """Each range sorted, with its rows."""
    for number, rows in group_by_key(concat_batches(batches, _RANGED), "range"):
        ordered = rows.take(pc.sort_indices(rows, _ORDER)).combine_chunks()
        first = ranges.offsets[number]
        row = np.arange(first, first + ordered.num_rows, dtype=np.int64)
        missed = pa.array(np.zeros(len(row), np.int32))
        columns = [pa.array(row), ordered["id"], ordered["n"], missed, pa.array(row // FILE_ROWS)]
        table = pa.table(dict(zip(_ROWS.names, columns, strict=True))).cast(_ROWS)
        yield from table.to_batches(1 << 16)


def _write(storage: Storage, side: str, batches: Batches) -> Batches:
    """Each file, sorted by row."""
    for number, rows in group_by_key(concat_batches(batches, _ROWS), "file"):
        ordered = rows.sort_by("row")
        live = pc.and_(pc.is_valid(ordered["id"]), pc.greater(ordered["n"], 0))
        columns = [*(ordered[c] for c in ROWS.names), live]
        table = pa.Table.from_arrays(columns, schema=VOCAB).combine_chunks()
        entry = write_parquet(storage, "vocab", f"{side}s/part-{number:05d}.parquet", table)
        yield task_report(entry, {"events": pc.sum(table["count"]).as_py() or 0})
