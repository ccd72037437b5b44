"""Line numbers in files that several tasks read: how many lines come before each slice."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from pyspark.sql import SparkSession

from embedmill.pipeline.prepare.engine.frames import Batches, distribute, task_count
from embedmill.pipeline.prepare.engine.task_report import run_tasks, task_report
from embedmill.pipeline.prepare.readers.file_formats import FORMATS
from embedmill.pipeline.prepare.readers.file_slice import FileSlice, slices_table
from embedmill.pipeline.prepare.readers.text_lines import count_lines

__all__ = ["with_line_numbers"]


def with_line_numbers(session: SparkSession, slices: list[FileSlice]) -> list[FileSlice]:
    """The slices, in order, with the number of their first line filled in.

    Tasks count newlines, which takes a tenth of the time that parsing takes afterwards. Only
    large uncompressed text files have several slices, so most logs need no counting.
    """
    counted = [one for one in slices if not one.ends_file and FORMATS[one.format].has_lines]
    if not counted:
        return slices
    size = sum(one.bytes for one in counted)
    frame = distribute(session, slices_table(counted), "number", task_count(size, len(counted)))
    lines = run_tasks(frame, _count_lines).counts
    numbered, first_line = [], 1
    for one in slices:
        first_line = 1 if one.start <= 0 else first_line
        text = FORMATS[one.format].has_lines
        numbered.append(replace(one, first_line=first_line) if text else one)
        first_line += lines[str(one.number)]
    return numbered


def _count_lines(batches: Batches) -> Batches:
    counts: Counter[str] = Counter()
    for batch in batches:
        for row in batch.to_pylist():
            counts[str(row["number"])] = count_lines(row["url"], row["start"], row["end"])
    yield task_report(None, counts)
