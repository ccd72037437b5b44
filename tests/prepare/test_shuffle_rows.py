"""Rows of the shuffle: what goes in by kind comes out by kind."""

from __future__ import annotations

import pyarrow as pa

from embedmill.pipeline.prepare import shuffle_rows
from embedmill.pipeline.prepare.engine.task_report import task_report
from embedmill.schemas.events import EVENTS

EVENT_ROWS = [
    {"user": "a", "item": "x", "time": 5, "weight": 2.0, "split": None},
    {"user": "b", "item": "y", "time": 7, "weight": 1.0, "split": "test"},
]


def test_kinds_are_told_apart() -> None:
    events = pa.Table.from_pylist(EVENT_ROWS, schema=EVENTS)
    report = task_report(None, {"rows_in": 3})
    batches = [
        *shuffle_rows.event_rows(events),
        shuffle_rows.report_row(report, 1),
        shuffle_rows.last_time_rows(7, 3),
    ]
    table = pa.Table.from_batches(batches)
    assert table["bucket"].to_pylist() == [None, None, 1, 0, 1, 2]
    (batch,) = table.combine_chunks().to_batches()
    rows = shuffle_rows.separate(batch)
    names = [name for name in rows.events.schema.names if name != "bucket"]
    assert rows.events.select(names).to_pylist() == EVENT_ROWS
    assert [one.to_pylist() for one in rows.reports] == [report.to_pylist()]
    assert rows.last_times == [7, 7, 7]


def test_a_batch_of_events_alone_has_no_control_rows() -> None:
    (batch,) = shuffle_rows.event_rows(pa.Table.from_pylist(EVENT_ROWS, schema=EVENTS))
    rows = shuffle_rows.separate(batch)
    assert rows.events.num_rows == 2
    assert list(rows.reports) == []
    assert rows.last_times == []
