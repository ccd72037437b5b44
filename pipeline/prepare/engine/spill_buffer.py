"""Rows that a task collects before it sorts them: in memory while there is room, else on disk.

The embedded engine runs all tasks of a stage at once in threads of one process, so what they
collect adds up to the whole log.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable
from typing import IO

import pyarrow as pa

from embedmill.pipeline.errors import MachineError
from embedmill.pipeline.prepare.engine.backpressure import LOCAL, Backpressure
from embedmill.pipeline.prepare.engine.frames import Batches, group_by_key

__all__ = ["SpillBuffer"]


class SpillBuffer:
    """Record batches of one task, read back once as a table.

    From the first batch for which memory has no room, all batches go to an unlinked temporary
    file in the folder of TMPDIR; it disappears however the process ends.

    Args:
        schema: of the table where no rows are added.
        backpressure: counts the bytes in memory, of all buffers of the process together.
    """

    def __init__(self, schema: pa.Schema, backpressure: Backpressure = LOCAL) -> None:
        self._schema = schema
        self._backpressure = backpressure
        self._batches: list[pa.RecordBatch] = []
        self._bytes = 0  # reserved in memory
        self._file: IO[bytes] | None = None
        self._writer: pa.ipc.RecordBatchStreamWriter | None = None

    @classmethod
    def from_batches(
        cls,
        batches: Iterable[pa.RecordBatch],
        schema: pa.Schema,
        backpressure: Backpressure = LOCAL,
    ) -> SpillBuffer:
        """A buffer of all batches.

        Raises:
            MachineError: the disk of temporary files is full.
        """
        buffer = cls(schema, backpressure)
        for batch in batches:
            buffer.append(batch)
        return buffer

    @property
    def spilled(self) -> bool:
        """Whether the rows are on disk."""
        return self._file is not None

    def append(self, batch: pa.RecordBatch) -> None:
        """Add the rows of a batch.

        Raises:
            MachineError: the disk of temporary files is full.
        """
        if not batch.num_rows:
            return
        self._backpressure.consumed(batch.nbytes)
        if self._writer is None and not self._backpressure.reserve(batch.nbytes):
            self._spill(batch.schema)
        if self._writer is None:
            self._bytes += batch.nbytes
            self._batches.append(batch)
        else:
            self._write(batch)

    def drain(self) -> pa.Table:
        """All rows, a single chunk per column. The buffer is empty afterwards."""
        if self._writer is not None:
            assert self._file is not None
            self._writer.close()
            self._file.seek(0)
            with self._file, pa.ipc.open_stream(self._file) as stream:
                return stream.read_all().combine_chunks()
        schema = self._batches[0].schema if self._batches else self._schema
        table = pa.Table.from_batches(self._batches, schema).combine_chunks()
        self._release()
        return table

    def drain_groups(self, key: str, work: Callable[[int, pa.Table], Batches]) -> Batches:
        """Drain the buffer and call `work` for each value of an integer column, in rising order.

        All of it runs in one compute slot, so `work` must return few rows: they are held until
        the slot is free again.

        Args:
            key: the column; rows are passed to `work` without it.
            work: takes a value of the column and its rows.
        """
        with self._backpressure.compute_slot():
            groups = group_by_key(self.drain(), key)
            results = [batch for value, rows in groups for batch in work(value, rows)]
        yield from results

    def __del__(self) -> None:
        self._release()  # where the task failed before it drained the buffer

    def _spill(self, schema: pa.Schema) -> None:
        """Move the batches in memory to a temporary file."""
        self._file = tempfile.TemporaryFile(prefix="embedmill-")  # noqa: SIM115
        options = pa.ipc.IpcWriteOptions(compression="lz4")
        self._writer = pa.ipc.new_stream(self._file, schema, options=options)
        for batch in self._batches:
            self._write(batch)
        self._release()

    def _write(self, batch: pa.RecordBatch) -> None:
        assert self._writer is not None
        try:
            self._writer.write_batch(batch)
        except OSError as error:
            raise MachineError(
                f"rows cannot be spilled to disk: {error}",
                where=tempfile.gettempdir(),
                todo="Make room there, or set TMPDIR to a folder on a larger disk",
            ) from error

    def _release(self) -> None:
        self._backpressure.release(self._bytes)
        self._batches, self._bytes = [], 0
