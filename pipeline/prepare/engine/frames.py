"""Frames and their tasks, on whatever engine a session is of (see `connection`).

Frames are built from strings only (`selectExpr`, column names), never from column objects:
these belong to one kind of session, and a process may hold both kinds.
"""

from __future__ import annotations

import json
import os
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyspark
from pyspark.sql import DataFrame, SparkSession

from embedmill import __version__
from embedmill.pipeline.errors import EmbedmillError, MachineError, from_text
from embedmill.pipeline.log import Progress
from embedmill.schemas.manifest import FileEntry

__all__ = [
    "REPORT",
    "REPORT_ARROW",
    "Batches",
    "Done",
    "by_key",
    "collect",
    "gather",
    "last_line",
    "mapped",
    "report",
    "software",
    "spread",
    "tasks_for",
    "together",
    "turn",
    "wait_for_tasks",
    "watched",
]

# What a task hands back: a file that it wrote (path empty: none) and counts as JSON.
REPORT = "path string, rows long, bytes long, sha256 string, counts string"
REPORT_ARROW = pa.schema(
    [
        ("path", pa.string()),
        ("rows", pa.int64()),
        ("bytes", pa.int64()),
        ("sha256", pa.string()),
        ("counts", pa.string()),
    ]
)
_TASKS = threading.Condition()
_tasks_running = 0  # of Sail's, in threads of this process
_rows_read = 0  # by them, since this process began
_LOOK = 0.2  # seconds between two looks at it
_TASKS_END = 10.0  # seconds
_TURNS = threading.BoundedSemaphore(os.cpu_count() or 1)
TASK_BYTES = 8 << 20  # of files, compressed, that a task reads
Batches = Iterator[pa.RecordBatch]
# What decides the bytes of a file: two attempts at a task must write the same ones.
_VERSIONS = {"embedmill": __version__, "pyarrow": pa.__version__}


@dataclass
class Done:
    """What the tasks of a frame did: files written, counts summed."""

    files: list[FileEntry] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)


def software(session: SparkSession) -> dict[str, str]:
    """Versions of the engine, for a manifest."""
    return {"spark": session.version, "pyspark": pyspark.__version__, "pyarrow": pa.__version__}


def tasks_for(size: int, most: int) -> int:
    """How many tasks work on `size` bytes that come in `most` pieces, each task some pieces.

    A task of Python costs Spark a tenth of a second, however little it does.
    """
    return max(1, min(most, -(-size // TASK_BYTES)))


def spread(session: SparkSession, rows: pa.Table, key: str, tasks: int) -> DataFrame:
    """A small table as a frame with its rows spread over tasks by a hash of `key`."""
    return session.createDataFrame(rows).repartition(tasks, key)


def collect(frame: DataFrame) -> pa.Table:
    """A frame that does not grow with the data, as a table on the driver.

    Raises:
        EmbedmillError: ours, when a task raised one.
        MachineError: the engine failed otherwise.
    """
    try:
        return frame.toArrow()
    except EmbedmillError:
        raise
    except Exception as error:
        raise _translated(error) from error


def report(entry: FileEntry | None, counts: Mapping[str, int]) -> pa.RecordBatch:
    """One row of REPORT."""
    row = {
        "path": entry.path if entry else "",
        "rows": (entry.rows or 0) if entry else 0,
        "bytes": entry.bytes if entry else 0,
        "sha256": entry.sha256 if entry else "",
        "counts": json.dumps(counts, sort_keys=True),
    }
    return pa.RecordBatch.from_pylist([row], schema=REPORT_ARROW)


def gather(frame: DataFrame) -> Done:
    """Run a frame of REPORT rows; files in order of path."""
    done = Done()
    for row in collect(frame).to_pylist():
        if row["path"]:
            names = ("path", "rows", "bytes", "sha256")
            done.files.append(FileEntry(**{name: row[name] for name in names}))
        done.counts.update(json.loads(row["counts"]))
    done.files.sort(key=lambda f: f.path)
    return done


def mapped(
    frame: DataFrame, task: Callable[[Batches], Batches], schema: str, *, reads: bool = False
) -> DataFrame:
    """`mapInArrow`, typed. Rows of a task that `reads` a log or artifact count as progress.

    A task raises MachineError where its packages are not those of this process.
    """
    return frame.mapInArrow(cast(Any, _Counted(task, reads, _VERSIONS)), schema)


@contextmanager
def watched(progress: Progress, unit: str) -> Iterator[None]:
    """Tell how many rows the tasks have read while the block waits for the engine.

    The embedded engine's tasks run in this process and are counted as they go; those of
    another engine are out of sight, and nothing is told.
    """
    ended, before = threading.Event(), _rows_read

    def tell() -> None:
        while not ended.wait(_LOOK):
            if _rows_read > before:
                progress.update(_rows_read - before, None, unit)

    teller = threading.Thread(target=tell, name="progress", daemon=True)
    teller.start()
    try:
        yield
    finally:
        ended.set()
        teller.join()


@dataclass(frozen=True)
class _Counted:
    """A task of the driver's software that is known to run, so that no process ends below it."""

    task: Callable[[Batches], Batches]
    reads: bool
    versions: Mapping[str, str]

    def __call__(self, batches: Batches) -> Batches:
        _agree(self.versions)
        _count(1)
        try:
            for batch in self.task(batches):
                if self.reads:
                    _count(0, batch.num_rows)
                yield batch
        finally:
            _count(-1)


def _agree(versions: Mapping[str, str]) -> None:
    """Raise MachineError unless this process has the driver's packages."""
    for name, wanted in versions.items():
        if _VERSIONS[name] != wanted:
            raise MachineError(
                f"a task has {name} {_VERSIONS[name]}, the driver {wanted}",
                where=socket.gethostname(),
                todo="Give all nodes one environment, or ship it with --archives",
            )


def _count(tasks: int, rows: int = 0) -> None:
    global _rows_read, _tasks_running
    with _TASKS:
        _tasks_running += tasks
        _rows_read += rows
        _TASKS.notify_all()


def wait_for_tasks() -> None:
    """Wait, some seconds at most, until no task of the embedded engine runs in this process."""
    with _TASKS:
        _TASKS.wait_for(lambda: _tasks_running <= 0, _TASKS_END)


def together(batches: Batches, schema: pa.Schema) -> pa.Table:
    """All batches of a task as one table; `schema` is for a task that gets none."""
    kept = [b for b in batches if b.num_rows]
    table = pa.Table.from_batches(kept) if kept else schema.empty_table()
    return table.combine_chunks()


@contextmanager
def turn() -> Iterator[None]:
    """Wait for a core. Sail runs all tasks of a stage at once, in threads of this process:
    were they all to sort at once, memory would grow with the number of tasks. Never yield
    from inside: whoever reads the rows may wait for a turn too.
    """
    with _TURNS:
        yield


def by_key(table: pa.Table, key: str) -> Iterator[tuple[int, pa.Table]]:
    """The rows of each value of an integer column, which is left out, by rising value."""
    keys, table = table[key].to_numpy(), table.drop_columns([key])
    values, sizes = np.unique(keys, return_counts=True)
    order = np.argsort(keys, kind="stable") if len(values) > 1 else None
    end = 0
    for value, size in zip(values.tolist(), sizes.tolist(), strict=True):
        start, end = end, end + size
        yield value, table if order is None else table.take(pa.array(order[start:end]))


def _translated(error: Exception) -> EmbedmillError:
    text = str(error)
    return from_text(text) or MachineError(f"the engine failed: {last_line(error)}")


def last_line(error: Exception) -> str:
    """The last line of what an error says."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
