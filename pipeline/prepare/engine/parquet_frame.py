"""Parquet files of an artifact as a frame, read by the tasks themselves.

The engine's own reader would need its own drivers for every object store, and sees nothing
of memory://.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession

from embedmill.pipeline.prepare.engine.backpressure import Pace
from embedmill.pipeline.prepare.engine.frames import Batches, mapped, spread, tasks_for
from embedmill.pipeline.store.parquet import parquet_batches
from embedmill.pipeline.store.storage import Storage
from embedmill.schemas.manifest import FileEntry

__all__ = ["frame"]

_BATCH = 1 << 16
_NAMES = {
    "string": "string",
    "int64": "long",
    "int32": "int",
    "double": "double",
    "bool": "boolean",
}


@dataclass(frozen=True)
class _Reader:
    storage: Storage
    columns: tuple[str, ...]
    pace: Pace | None


def frame(
    session: SparkSession,
    storage: Storage,
    files: Sequence[FileEntry],
    schema: pa.Schema,
    *,
    paced: bool = False,
) -> DataFrame:
    """The columns of `schema` from all files, in no order.

    Args:
        session: the engine.
        storage: the folder that paths are relative to.
        files: which files.
        schema: the columns to read, with their types.
        paced: for a log whose rows tasks collect; reading keeps in step with them.
    """
    named = [f.path for f in files] or [""]  # Spark Connect knows no table without rows
    paths = pa.table({"path": pa.array(named, pa.string())})
    ddl = ", ".join(f"`{f.name}` {_NAMES[str(f.type)]}" for f in schema)
    reader = _Reader(storage, tuple(schema.names), Pace() if paced else None)
    tasks = tasks_for(sum(f.bytes for f in files), len(files))
    return mapped(spread(session, paths, "path", tasks), partial(_read, reader), ddl, reads=True)


def _read(reader: _Reader, batches: Batches) -> Batches:
    for batch in batches:
        for path in filter(None, batch.column(0).to_pylist()):
            rows = parquet_batches(reader.storage, path, rows=_BATCH, columns=reader.columns)
            # Not in turn: of two sides of a join the one would wait for the other.
            yield from rows if reader.pace is None else reader.pace.held_back(rows)
