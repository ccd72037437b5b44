"""Numbers of lines in files that are read in parts: how many lines lie before each."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from pyspark.sql import SparkSession

from embedmill.pipeline.prepare.engine.frames import Batches, distribute, task_count
from embedmill.pipeline.prepare.engine.task_report import run_tasks, task_report
from embedmill.pipeline.prepare.readers import sources
from embedmill.pipeline.prepare.readers.parsed_batch import Split
from embedmill.pipeline.prepare.readers.text import count_lines

__all__ = ["numbered"]


def numbered(session: SparkSession, splits: list[Split]) -> list[Split]:
    """The splits with the number of their first line.

    Newlines are counted by tasks, which costs a tenth of the reading that follows; only large
    files of text without compression are cut, so most logs need none of it.
    """
    before = [one for one in splits if not one.last and one.format != "parquet"]
    if not before:
        return splits
    size = sum(split.bytes for split in before)
    frame = distribute(session, sources.task_table(before), "number", task_count(size, len(before)))
    lines = run_tasks(frame, _count).counts
    found, first = [], 1
    for split in splits:
        first = 1 if split.start <= 0 else first
        found.append(replace(split, first=first) if split.format != "parquet" else split)
        first += lines[str(split.number)]
    return found


def _count(batches: Batches) -> Batches:
    counts: Counter[str] = Counter()
    for batch in batches:
        for row in batch.to_pylist():
            counts[str(row["number"])] = count_lines(row["url"], row["start"], row["end"])
    yield task_report(None, counts)
