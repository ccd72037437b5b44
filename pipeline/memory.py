"""The memory of a process and of all that descend from it, looked at while they work."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from types import TracebackType

__all__ = ["Memory", "held"]

_PROC = Path("/proc")
_EVERY = 0.5  # seconds between two looks; one takes a few milliseconds
# Pages of files are the system's to take back; those of tables mapped from a disk are of files.
_COUNTED = ("RssAnon:", "RssShmem:")


class Memory:
    """Watches a process, this one if none is named, while its block runs and when it is read.

    Processes on other machines are out of sight. Where the system has no /proc, nothing is
    known.
    """

    def __init__(self, process: int | None = None) -> None:
        self._process = os.getpid() if process is None else process
        self._ended = threading.Event()
        self._watcher = threading.Thread(target=self._watch, name="memory", daemon=True)
        self._peak = 0

    def __enter__(self) -> Memory:
        self._watcher.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._watcher.join()

    def measured(self) -> dict[str, float]:
        """`peak_bytes` so far, or nothing where it is not known."""
        self._look()
        return {"peak_bytes": self._peak} if self._peak else {}

    def _watch(self) -> None:
        self._look()
        while not self._ended.wait(_EVERY):
            self._look()

    def _look(self) -> None:
        self._peak = max(self._peak, sum(held(process) for process in _family(self._process)))


def held(process: int) -> int:
    """Resident bytes of a process that are of no file; 0 where it has ended."""
    try:
        lines = (_PROC / str(process) / "status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) << 10 for line in lines if line.startswith(_COUNTED))


def _family(process: int) -> list[int]:
    """A process and all that descend from it."""
    found = [process]
    for one in found:
        for path in (_PROC / str(one) / "task").glob("*/children"):
            try:
                found += map(int, path.read_text(encoding="ascii").split())
            except OSError:
                continue  # the thread has ended
    return found
