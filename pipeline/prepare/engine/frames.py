"""DataFrames and the Python tasks that run over them, on whichever engine a session belongs to.

Frames are built from strings only (`selectExpr`, column names), never from column objects:
these belong to one kind of session, and a process may hold both kinds.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyspark
from pyspark.sql import DataFrame, SparkSession

from embedmill import __version__
from embedmill.pipeline.errors import EmbedmillError, MachineError, from_text
from embedmill.pipeline.prepare.engine.task_monitor import LOCAL_TASKS

__all__ = [
    "TASK_BYTES",
    "Batches",
    "collect",
    "concat_batches",
    "distribute",
    "engine_versions",
    "group_by_key",
    "interrupt_behind",
    "last_line",
    "map_batches",
    "task_count",
]

TASK_BYTES = 8 << 20  # of files, compressed, that one task reads
_DETAILS = re.compile(r'^\s*details = "(?P<text>.+)"$', re.MULTILINE)
Batches = Iterator[pa.RecordBatch]
# These decide the bytes of a file, and a task that is tried again must write the same ones.
_VERSIONS = {"embedmill": __version__, "pyarrow": pa.__version__}


def engine_versions(session: SparkSession) -> dict[str, str]:
    """Versions of the engine and its libraries, for a manifest."""
    return {"spark": session.version, "pyspark": pyspark.__version__, "pyarrow": pa.__version__}


def task_count(size: int, most: int) -> int:
    """How many tasks process `size` bytes that come in `most` pieces: one per TASK_BYTES.

    Starting a Python task costs Apache Spark a tenth of a second, however little it does.
    """
    return max(1, min(most, -(-size // TASK_BYTES)))


def distribute(session: SparkSession, rows: pa.Table, key: str, tasks: int) -> DataFrame:
    """A small table as a frame whose rows are partitioned by a hash of `key`.

    Args:
        session: the engine.
        rows: the table, sent from the driver.
        key: a column; rows with the same value go to the same task.
        tasks: number of partitions.
    """
    return session.createDataFrame(rows).repartition(tasks, key)


def collect(frame: DataFrame) -> pa.Table:
    """A frame that does not grow with the data, as a table on the driver.

    Raises:
        EmbedmillError: a task raised it.
        MachineError: the engine failed otherwise.
    """
    try:
        return frame.toArrow()
    except EmbedmillError:
        raise
    except Exception as error:
        raise _translated(error) from error


def map_batches(
    frame: DataFrame, task: Callable[[Batches], Batches], schema: str, *, reads: bool = False
) -> DataFrame:
    """The frame that `task` makes of each partition's record batches (`DataFrame.mapInArrow`).

    Where a task runs with packages of other versions than the driver's, it raises MachineError.

    Args:
        frame: the input.
        task: called once per partition; pickled, so it must be a function of a module, or a
            `functools.partial` of one.
        schema: columns of the result, as Spark DDL.
        reads: whether the rows it yields were read from a log or artifact; they are counted as
            progress.
    """
    return frame.mapInArrow(cast(Any, _MonitoredTask(task, reads, _VERSIONS)), schema)


@dataclass(frozen=True)
class _MonitoredTask:
    """A task that checks versions first and is counted in `LOCAL_TASKS` while it runs."""

    task: Callable[[Batches], Batches]
    reads: bool
    versions: Mapping[str, str]

    def __call__(self, batches: Batches) -> Batches:
        _check_versions(self.versions)
        with LOCAL_TASKS.running():
            for batch in self.task(batches):
                if self.reads:
                    LOCAL_TASKS.add_rows(batch.num_rows)
                yield batch


def _check_versions(driver: Mapping[str, str]) -> None:
    """Raise MachineError unless this process has the driver's packages."""
    for name, wanted in driver.items():
        if _VERSIONS[name] != wanted:
            raise MachineError(
                f"a task has {name} {_VERSIONS[name]}, the driver {wanted}",
                where=socket.gethostname(),
                todo="Give all nodes one environment, or ship it with --archives",
            )


def concat_batches(batches: Batches, schema: pa.Schema) -> pa.Table:
    """All batches of a task as one table, of `schema` where there are none."""
    filled = [batch for batch in batches if batch.num_rows]
    table = pa.Table.from_batches(filled) if filled else schema.empty_table()
    return table.combine_chunks()


def group_by_key(table: pa.Table, key: str) -> Iterator[tuple[int, pa.Table]]:
    """Each value of an integer column, in rising order, and its rows without that column."""
    keys, table = table[key].to_numpy(), table.drop_columns([key])
    values, sizes = np.unique(keys, return_counts=True)
    order = np.argsort(keys, kind="stable") if len(values) > 1 else None
    end = 0
    for value, size in zip(values.tolist(), sizes.tolist(), strict=True):
        start, end = end, end + size
        yield value, table if order is None else table.take(pa.array(order[start:end]))


def last_line(error: Exception) -> str:
    """The last line of an error's message: the cause, where an engine puts a stack before it.

    Of gRPC's errors, whose text is a block with fields, the details.
    """
    if (details := _DETAILS.search(str(error))) is not None:
        return details["text"]
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


def _translated(error: Exception) -> EmbedmillError:
    """The EmbedmillError whose text an engine's error carries, else a MachineError."""
    return from_text(str(error)) or MachineError(f"the engine failed: {last_line(error)}")


def interrupt_behind(error: BaseException | None) -> KeyboardInterrupt | None:
    """The Ctrl-C that led to an error, or None.

    At Ctrl-C Spark Connect's client asks the server to cancel the query; where the server is
    gone, that call raises an error of its own, with the KeyboardInterrupt as its context.
    """
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error
