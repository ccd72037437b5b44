"""Rows that a task collects before it sorts them: in memory while there is room, else on disk.

The embedded engine runs all tasks of a stage at once in threads of one process, so what they
hold adds up to the whole log.
"""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Iterable
from typing import IO

import pyarrow as pa

from embedmill.pipeline.errors import MachineError
from embedmill.pipeline.prepare.engine.backpressure import taken
from embedmill.pipeline.prepare.engine.frames import Batches, by_key, turn

__all__ = ["ROOM", "Held", "each"]

ROOM = 1 << 30  # bytes held in memory by all tasks of this process together
_COUNTED = threading.Lock()
_held = 0


class Held:
    """Batches of one task; `table` gives them back, once.

    They go to a temporary file without a name, in the folder that TMPDIR says, from the first
    batch on that finds no room; nothing of it stays, however the process ends.
    """

    def __init__(self, schema: pa.Schema) -> None:
        self._schema = schema
        self._batches: list[pa.RecordBatch] = []
        self._bytes = 0
        self._file: IO[bytes] | None = None
        self._writer: pa.ipc.RecordBatchStreamWriter | None = None

    @staticmethod
    def of(batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> Held:
        """All batches; `schema` is for a task that gets none.

        Raises:
            MachineError: the disk of temporary files is full.
        """
        held = Held(schema)
        for batch in batches:
            held.add(batch)
        return held

    def add(self, batch: pa.RecordBatch) -> None:
        """Hold a batch."""
        if not batch.num_rows:
            return
        taken(batch.nbytes)
        if self._writer is None and not _take(batch.nbytes):
            self._spill(batch.schema)
        if self._writer is None:
            self._bytes += batch.nbytes
            self._batches.append(batch)
        else:
            self._write(batch)

    def table(self) -> pa.Table:
        """All rows in one chunk; nothing is held after it."""
        if self._writer is not None:
            assert self._file is not None
            self._writer.close()
            self._file.seek(0)
            with self._file, pa.ipc.open_stream(self._file) as stream:
                return stream.read_all().combine_chunks()
        found = pa.Table.from_batches(self._batches, self._batches[0].schema if self._batches
                                      else self._schema).combine_chunks()  # fmt: skip
        self._release()
        return found

    def __del__(self) -> None:
        self._release()  # of a task that failed

    def _spill(self, schema: pa.Schema) -> None:
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
                f"rows cannot be set aside: {error}",
                where=tempfile.gettempdir(),
                todo="Make room there, or set TMPDIR to a folder on a larger disk",
            ) from error

    def _release(self) -> None:
        _give(self._bytes)
        self._batches, self._bytes = [], 0


def each(held: Held, key: str, work: Callable[[int, pa.Table], Batches]) -> Batches:
    """What `work` makes of the rows of each value of `key`, when it is this task's turn."""
    with turn():
        made = [one for value, rows in by_key(held.table(), key) for one in work(value, rows)]
    yield from made


def _take(size: int) -> bool:
    """Whether there is room for so many bytes more; they count from now on."""
    global _held
    with _COUNTED:
        if _held + size > ROOM:
            return False
        _held += size
        return True


def _give(size: int) -> None:
    global _held
    with _COUNTED:
        _held -= size
