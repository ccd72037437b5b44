"""What a person sees while the embedded engine works."""

from __future__ import annotations

import time

import pyarrow as pa
from pyspark.sql import SparkSession

from embedmill.pipeline.prepare.engine.frames import Batches, collect, map_batches
from embedmill.pipeline.prepare.engine.task_monitor import report_progress


class Told:
    def __init__(self) -> None:
        self.done: list[int] = []

    def update(self, done: int, total: int | None, unit: str, **facts: float) -> None:
        assert (total, unit, facts) == (None, "rows", {})
        self.done.append(done)

    def note(self, text: str) -> None:
        raise AssertionError(text)


def _slowly(batches: Batches) -> Batches:
    for batch in batches:
        for row in range(batch.num_rows):
            time.sleep(0.3)
            yield batch.slice(row, 1)


def test_rows_are_told_as_tasks_read_them(sail: SparkSession) -> None:
    frame = sail.createDataFrame(pa.table({"n": [1, 2, 3, 4]})).repartition(1, "n")
    told = Told()
    with report_progress(told, "rows"):
        collect(map_batches(frame, _slowly, "n long", reads=True))
    assert told.done == sorted(told.done)
    assert {1, 2, 3} <= set(told.done) <= {1, 2, 3, 4}
    count = len(told.done)
    time.sleep(0.5)
    assert len(told.done) == count


def test_tasks_that_read_nothing_tell_nothing(sail: SparkSession) -> None:
    frame = sail.createDataFrame(pa.table({"n": [1, 2]})).repartition(1, "n")
    told = Told()
    with report_progress(told, "rows"):
        collect(map_batches(frame, _slowly, "n long"))
    assert told.done == []
