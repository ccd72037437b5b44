"""Tasks of the embedded engine that run in threads of this process: how many, and rows read."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from embedmill.pipeline.log import Progress

__all__ = ["LOCAL_TASKS", "TaskMonitor", "report_progress"]

_POLL_INTERVAL = 0.2  # seconds
_END_TIMEOUT = 10.0  # seconds


class TaskMonitor:
    """Counts of the tasks that run in this process."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._running = 0
        self._rows_read = 0

    @property
    def rows_read(self) -> int:
        """Rows that tasks have read since the process began."""
        return self._rows_read

    def add_rows(self, rows: int) -> None:
        """Count rows that a task has read."""
        with self._changed:
            self._rows_read += rows

    @contextmanager
    def running(self) -> Iterator[None]:
        """Count a task as running inside the block."""
        with self._changed:
            self._running += 1
        try:
            yield
        finally:
            with self._changed:
                self._running -= 1
                self._changed.notify_all()

    def wait_until_idle(self, timeout: float = _END_TIMEOUT) -> bool:
        """Wait until no task runs, `timeout` seconds at most; returns whether none does."""
        with self._changed:
            return self._changed.wait_for(lambda: self._running <= 0, timeout)


LOCAL_TASKS = TaskMonitor()


@contextmanager
def report_progress(progress: Progress, unit: str) -> Iterator[None]:
    """Report rows read so far while the block waits for the engine.

    Only tasks of the embedded engine can be counted, as they run in this process; with another
    engine nothing is reported.
    """
    ended, before = threading.Event(), LOCAL_TASKS.rows_read

    def poll() -> None:
        while not ended.wait(_POLL_INTERVAL):
            rows = LOCAL_TASKS.rows_read - before
            if rows:
                progress.update(rows, None, unit)

    poller = threading.Thread(target=poll, name="progress", daemon=True)
    poller.start()
    try:
        yield
    finally:
        ended.set()
        poller.join()
