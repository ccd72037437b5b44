"""What tasks report to the driver: each file that they wrote, and counters."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import pyarrow as pa
from pyspark.sql import DataFrame

from embedmill.pipeline.prepare.engine.frames import Batches, collect, map_batches
from embedmill.schemas.manifest import FileEntry

__all__ = ["REPORT_DDL", "REPORT_SCHEMA", "TaskResults", "run_tasks", "task_report"]

# `path` is empty where no file was written; `counts` is a JSON object of integers.
REPORT_DDL = "path string, rows long, bytes long, sha256 string, counts string"
REPORT_SCHEMA = pa.schema(
    [
        ("path", pa.string()),
        ("rows", pa.int64()),
        ("bytes", pa.int64()),
        ("sha256", pa.string()),
        ("counts", pa.string()),
    ]
)


@dataclass
class TaskResults:
    """Files that the tasks of a frame wrote, by path, and the sums of their counters."""

    files: list[FileEntry] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)


def task_report(entry: FileEntry | None, counts: Mapping[str, int]) -> pa.RecordBatch:
    """One row of REPORT_SCHEMA."""
    row = {
        "path": entry.path if entry else "",
        "rows": (entry.rows or 0) if entry else 0,
        "bytes": entry.bytes if entry else 0,
        "sha256": entry.sha256 if entry else "",
        "counts": json.dumps(counts, sort_keys=True),
    }
    return pa.RecordBatch.from_pylist([row], schema=REPORT_SCHEMA)


def run_tasks(frame: DataFrame, task: Callable[[Batches], Batches]) -> TaskResults:
    """Run a task on each partition of a frame and sum up what they report.

    Args:
        frame: the input.
        task: as for `map_batches`; it writes files and yields `task_report`s.

    Raises:
        EmbedmillError: a task raised it.
        MachineError: the engine failed otherwise.
    """
    results = TaskResults()
    for row in collect(map_batches(frame, task, REPORT_DDL)).to_pylist():
        if row["path"]:
            names = ("path", "rows", "bytes", "sha256")
            results.files.append(FileEntry(**{name: row[name] for name in names}))
        results.counts.update(json.loads(row["counts"]))
    results.files.sort(key=lambda file: file.path)
    return results
