"""How many tasks read at once, and how far they may run ahead of those that collect their rows.

The embedded engine runs all tasks of a stage at once, in threads of this process, and puts no
bound on what lies between two of them. Were all to read, each with a row group of its file at
hand, memory would grow with the number of files; where collecting is slower than reading, as it
is from the moment that rows go to disk, the log would wait in memory. Tasks of Apache Spark are
in processes of their own, a core each, and its shuffle goes by way of the disk: there nothing is
done.
"""

from __future__ import annotations

import os
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field

import pyarrow as pa

__all__ = ["AHEAD", "READERS", "Pace", "taken"]

AHEAD = 1 << 28  # bytes
READERS = (os.cpu_count() or 1) + 1
# Seconds in which nothing is collected, after which what was made counts as dropped on its way.
_PATIENCE = 0.25
# Seconds in which nothing moves, after which one more may read: those that read may wait for it.
_STALL = 2.0
_HERE = uuid.uuid4().hex  # this process, as no other has it
_MOVED = threading.Condition()
_made = 0  # bytes
_taken = 0
_reading = 0  # tasks
_moved_at = 0.0  # monotonic seconds, of the last thing read or collected


@dataclass(frozen=True)
class Pace:
    """Sent with a task from the process that it is of; there, and only there, it holds back."""

    process: str = field(default_factory=lambda: _HERE)

    def in_turn(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """The batches, begun when fewer than READERS others are under way.

        For tasks whose rows go to those that collect them, and to nothing that waits for others.
        """
        if self.process != _HERE:
            yield from batches
            return
        _begin()
        try:
            for batch in batches:
                _count()
                yield batch
        finally:
            _end()

    def held_back(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """The batches, each after those made before it were collected but for AHEAD bytes."""
        if self.process != _HERE:
            yield from batches
            return
        for batch in batches:
            yield batch
            _wait(batch.nbytes)


def taken(size: int) -> None:
    """Tell those that read that so many bytes were collected."""
    global _made, _taken, _moved_at
    with _MOVED:
        _taken, _moved_at = _taken + size, time.monotonic()
        _made = max(_made, _taken)  # rows may have grown on the way
        if _made - _taken <= AHEAD:
            _MOVED.notify_all()


def _wait(size: int) -> None:
    """Count what was made; wait while it is too far ahead and something is being collected."""
    global _made
    with _MOVED:
        _made += size
        while _made - _taken > AHEAD:
            before = _taken
            _MOVED.wait(_PATIENCE)
            if _taken == before:
                _made = _taken


def _begin() -> None:
    """Count a reader; wait while there are enough and anything moves."""
    global _reading, _moved_at
    with _MOVED:
        while _reading >= READERS and time.monotonic() - _moved_at < _STALL:
            _MOVED.wait(_STALL)
        _reading, _moved_at = _reading + 1, time.monotonic()


def _count() -> None:
    global _moved_at
    with _MOVED:
        _moved_at = time.monotonic()


def _end() -> None:
    global _reading
    with _MOVED:
        _reading -= 1
        _MOVED.notify_all()
