"""Backpressure between the tasks of one process: those that read a log and those that sort it.

The embedded engine, Sail, starts all tasks of a stage at once, in threads of this process, and
puts no bound on the rows that wait between two stages. Unbounded, memory would grow with the
number of files, since every open file has a row group decoded; and where rows are consumed more
slowly than they are read, as happens once they are spilled to disk, the whole log would wait in
memory. Apache Spark runs each task in a process of its own, one per core, and shuffles through
the disk: there, reading is not limited.
"""

from __future__ import annotations

import math
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pyarrow as pa

__all__ = ["LOCAL", "Backpressure"]

_CORES = os.cpu_count() or 1


class Backpressure:
    """Limits shared by the tasks of one process; that of this process is `LOCAL`.

    Pickled with a task, `LOCAL` arrives as `LOCAL` in the process it was pickled in, and in any
    other process as an object without limits.

    Args:
        max_readers: tasks that read at once.
        max_outstanding: bytes that may be read but not yet consumed.
        max_buffered: bytes that all spill buffers together keep in memory.
        patience: if nothing is consumed for this many seconds, outstanding bytes are treated as
            discarded: a filter may have dropped them on the way.
        stall: if nothing is read or consumed for this many seconds, one more reader may start:
            the others may be waiting for its rows.
    """

    def __init__(
        self,
        *,
        max_readers: float = _CORES + 1,
        max_outstanding: float = 1 << 28,
        max_buffered: float = 1 << 30,
        patience: float = 0.25,
        stall: float = 2.0,
    ) -> None:
        self.max_readers = max_readers
        self.max_outstanding = max_outstanding
        self.max_buffered = max_buffered
        self.patience = patience
        self.stall = stall
        self._id = uuid.uuid4().hex
        self._changed = threading.Condition()
        self._readers = 0
        self._produced = 0  # bytes
        self._consumed = 0  # bytes
        self._last_change = 0.0  # monotonic seconds, of the last batch read or consumed
        self._buffer_lock = threading.Lock()
        self._buffered = 0  # bytes
        self._compute_slots = threading.BoundedSemaphore(_CORES)

    def __reduce__(self) -> tuple[Callable[[str], Backpressure], tuple[str]]:
        return _unpickled, (self._id,)

    @property
    def readers(self) -> int:
        """Tasks that read now."""
        return self._readers

    @property
    def outstanding(self) -> int:
        """Bytes that were read and not yet consumed."""
        return self._produced - self._consumed

    @property
    def buffered(self) -> int:
        """Bytes that spill buffers keep in memory."""
        return self._buffered

    def limit_readers(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """The batches; the first is read once fewer than `max_readers` other tasks read.

        Only for tasks whose rows go straight to tasks that consume them. It must not be used for
        the inputs of a join: readers of one side would wait for a place while those of the other
        side hold all of them and wait for the join.
        """
        with self._changed:
            while self._readers >= self.max_readers and not self._stalled():
                self._changed.wait(self.stall)
            self._readers, self._last_change = self._readers + 1, time.monotonic()
        try:
            for batch in batches:
                with self._changed:
                    self._last_change = time.monotonic()
                yield batch
        finally:
            with self._changed:
                self._readers -= 1
                self._changed.notify_all()

    def throttle(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """The batches; waits after each while more than `max_outstanding` bytes are outstanding."""
        for batch in batches:
            yield batch
            self._wait_for_consumers(batch.nbytes)

    def consumed(self, size: int) -> None:
        """Count bytes that a task has received, and let readers go on."""
        with self._changed:
            self._consumed, self._last_change = self._consumed + size, time.monotonic()
            # Rows may take more bytes where they arrive than where they were read.
            self._produced = max(self._produced, self._consumed)
            if self.outstanding <= self.max_outstanding:
                self._changed.notify_all()

    def reserve(self, size: int) -> bool:
        """Count bytes of a buffer as in memory; False where `max_buffered` leaves no room."""
        with self._buffer_lock:
            if self._buffered + size > self.max_buffered:
                return False
            self._buffered += size
            return True

    def release(self, size: int) -> None:
        """Give back bytes that were reserved."""
        with self._buffer_lock:
            self._buffered -= size

    @contextmanager
    def compute_slot(self) -> Iterator[None]:
        """Wait for a core: were all tasks to sort at once, memory would grow with their number.

        Never yield rows while holding it: the task that receives them may wait for a slot too.
        """
        with self._compute_slots:
            yield

    def _stalled(self) -> bool:
        return time.monotonic() - self._last_change >= self.stall

    def _wait_for_consumers(self, size: int) -> None:
        """Count bytes as read; wait while there are too many and some are being consumed."""
        with self._changed:
            self._produced += size
            while self.outstanding > self.max_outstanding:
                before = self._consumed
                self._changed.wait(self.patience)
                if self._consumed == before:
                    self._produced = self._consumed


LOCAL = Backpressure()
_UNLIMITED = Backpressure(max_readers=math.inf, max_outstanding=math.inf)


def _unpickled(sender: str) -> Backpressure:
    return LOCAL if sender == LOCAL._id else _UNLIMITED
