"""Rows of the shuffle of stage `events`: events of users, and control rows of the tasks.

A task that parses a part of the log has more to hand on than events: a report on what it wrote
and counted, and, where weights decay, the time of its latest event. Both travel through the
same shuffle as control rows, because collecting them otherwise would take a second pass over the
log. The column `kind` says what a row is:

    EVENT      the columns of EVENTS; the engine computes `bucket` from the user
    REPORT     `report`: one row of REPORT, which the task of the bucket hands to the driver
    LAST_TIME  `time`: the latest time that a task has seen; one row for each bucket

The columns that a kind does not use are null. `report` is a list of at most one struct: in Arrow
a null list takes 4 bytes, a null struct as much as all of its fields.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from embedmill.pipeline.prepare.engine.frames import Batches
from embedmill.pipeline.prepare.engine.task_report import REPORT_DDL, REPORT_SCHEMA
from embedmill.schemas.events import EVENTS

__all__ = [
    "BUCKETED_EVENTS",
    "SHUFFLE_DDL",
    "RowKind",
    "SeparatedRows",
    "event_rows",
    "last_time_rows",
    "report_row",
    "separate",
    "shuffle_columns",
]

_BATCH_ROWS = 1 << 16  # events in a batch that goes into the shuffle


class RowKind(IntEnum):
    """What a row of the shuffle is."""

    EVENT = 0
    REPORT = 1
    LAST_TIME = 2


_NULLABLE_EVENTS = [pa.field(field.name, field.type) for field in EVENTS]
_SHUFFLE = pa.schema(
    [
        pa.field("kind", pa.int8()),
        *_NULLABLE_EVENTS,
        pa.field("report", pa.list_(pa.struct(list(REPORT_SCHEMA)))),
        pa.field("bucket", pa.int32()),
    ]
)
# The same columns for the engine.
SHUFFLE_DDL = (
    "kind tinyint, user string, item string, time long, weight double, split string, "
    f"report array<struct<{REPORT_DDL}>>, bucket int"
)
# Events as they leave the shuffle; `hash` is there where `shuffle_columns` adds it.
BUCKETED_EVENTS = pa.schema(
    [*_NULLABLE_EVENTS, pa.field("bucket", pa.int32()), pa.field("hash", pa.int64())]
)


def event_rows(events: pa.Table) -> Batches:
    """Events (schema EVENTS) as rows of the shuffle, in batches."""
    rows = events.num_rows
    columns = {
        "kind": pa.array(np.full(rows, RowKind.EVENT, np.int8)),
        **dict(zip(events.schema.names, events.columns, strict=True)),
    }
    table = pa.Table.from_arrays(_padded(columns, rows), schema=_SHUFFLE)
    yield from table.to_batches(max_chunksize=_BATCH_ROWS)


def report_row(report: pa.RecordBatch, bucket: int) -> pa.RecordBatch:
    """A report (one row of REPORT) as a control row to the task of a bucket."""
    columns = {"report": pa.array([report.to_pylist()], _SHUFFLE.field("report").type)}
    return _control_rows(RowKind.REPORT, columns, [bucket])


def last_time_rows(last_time: int, partitions: int) -> pa.RecordBatch:
    """The latest time that a task has seen (microseconds), as a control row to each bucket."""
    columns = {"time": pa.array(np.full(partitions, last_time))}
    return _control_rows(RowKind.LAST_TIME, columns, range(partitions))


def shuffle_columns(partitions: int, *, with_hash: bool) -> list[str]:
    """SQL columns of the shuffle: those of the tasks with the bucket of each row filled in.

    Args:
        partitions: number of buckets; an event's is a hash of its user modulo this.
        with_hash: add `hash`, a 64-bit hash of user and item.
    """
    bucket = f"coalesce(bucket, pmod(xxhash64(user), {partitions}))"
    columns = [name for name in _SHUFFLE.names if name != "bucket"]
    columns.append(f"cast({bucket} as int) as bucket")
    return [*columns, "xxhash64(user, item) as hash"] if with_hash else columns


@dataclass(frozen=True)
class SeparatedRows:
    """A batch of the shuffle by kind.

    `events` has the columns of BUCKETED_EVENTS, `reports` are rows of REPORT, `last_times`
    microseconds.
    """

    events: pa.RecordBatch
    reports: Batches
    last_times: list[int]


def separate(batch: pa.RecordBatch) -> SeparatedRows:
    """The rows of a shuffled batch by kind."""
    kinds = batch.column("kind").to_numpy()
    if not kinds.any():  # nearly all batches
        return SeparatedRows(batch.drop_columns(["kind", "report"]), iter(()), [])
    events = batch.filter(pa.array(kinds == RowKind.EVENT)).drop_columns(["kind", "report"])
    times = batch.column("time").filter(pa.array(kinds == RowKind.LAST_TIME))
    reports = batch.column("report").filter(pa.array(kinds == RowKind.REPORT))
    return SeparatedRows(events, _report_batches(reports), times.to_pylist())


def _report_batches(reports: pa.Array) -> Iterator[pa.RecordBatch]:
    if len(reports):
        rows = pc.list_flatten(reports).to_pylist()
        yield pa.RecordBatch.from_pylist(rows, schema=REPORT_SCHEMA)


def _control_rows(kind: RowKind, columns: dict[str, Any], buckets: Any) -> pa.RecordBatch:
    rows = len(buckets)
    columns |= {
        "kind": pa.array(np.full(rows, kind, np.int8)),
        "bucket": pa.array(buckets, pa.int32()),
    }
    return pa.RecordBatch.from_arrays(_padded(columns, rows), schema=_SHUFFLE)


def _padded(columns: dict[str, Any], rows: int) -> list[Any]:
    """The columns in the order of _SHUFFLE, those that are not given as nulls."""
    return [
        columns[field.name] if field.name in columns else pa.nulls(rows, field.type)
        for field in _SHUFFLE
    ]
