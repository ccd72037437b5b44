"""Parquet files of an artifact as a DataFrame, read by Python tasks.

The engine's own Parquet reader would need its own driver for every object store, and cannot see
memory://.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession

from embedmill.pipeline.prepare.engine.backpressure import LOCAL, Backpressure
from embedmill.pipeline.prepare.engine.frames import Batches, distribute, map_batches, task_count
from embedmill.pipeline.store.parquet import check_bytes, parquet_batches
from embedmill.pipeline.store.storage import Storage
from embedmill.schemas.manifest import FileEntry

__all__ = ["read_parquet"]

_BATCH_ROWS = 1 << 16
_ENTRY = pa.schema([("path", pa.string()), ("bytes", pa.int64()), ("sha256", pa.string())])
_DDL_TYPES = {
    "string": "string",
    "int64": "long",
    "int32": "int",
    "double": "double",
    "bool": "boolean",
}


@dataclass(frozen=True)
class _ReadTask:
    """What a task needs to read its files; it is sent to other processes."""

    storage: Storage
    columns: tuple[str, ...]
    backpressure: Backpressure | None


def read_parquet(
    session: SparkSession,
    storage: Storage,
    files: Sequence[FileEntry],
    schema: pa.Schema,
    *,
    throttled: bool = False,
) -> DataFrame:
    """The columns of `schema` from all files, in no order.

    Args:
        session: the engine.
        storage: the folder that paths are relative to.
        files: the files to read.
        schema: the columns to read, with their types.
        throttled: whether reading waits for the tasks that consume the rows. Only for rows that
            spill buffers collect: it is they that count what is consumed.
    """
    named = [(f.path, f.bytes, f.sha256) for f in files] or [("", 0, "")]  # Connect needs a row
    columns = [list(column) for column in zip(*named, strict=True)]
    paths = pa.table(dict(zip(_ENTRY.names, columns, strict=True)), schema=_ENTRY)
    ddl = ", ".join(f"`{field.name}` {_DDL_TYPES[str(field.type)]}" for field in schema)
    task = _ReadTask(storage, tuple(schema.names), LOCAL if throttled else None)
    tasks = task_count(sum(file.bytes for file in files), len(files))
    frame = distribute(session, paths, "path", tasks)
    return map_batches(frame, partial(_read, task), ddl, reads=True)


def _read(task: _ReadTask, batches: Batches) -> Batches:
    for batch in batches:
        for one in batch.to_pylist():
            path = one["path"]
            if not path:
                continue
            check_bytes(task.storage, FileEntry(**one))
            rows = parquet_batches(task.storage, path, rows=_BATCH_ROWS, columns=task.columns)
            # Readers are not limited in number: one side of a join would wait for the other.
            yield from rows if task.backpressure is None else task.backpressure.throttle(rows)
