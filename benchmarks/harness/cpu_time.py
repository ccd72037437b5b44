"""CPU time of a process and all its descendants, those that ended or were orphaned included."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from types import TracebackType

__all__ = ["CpuTime"]

_PROC = Path("/proc")
_INTERVAL = 0.1  # seconds between two looks; what a process uses after the last one is not seen
_TICKS = os.sysconf("SC_CLK_TCK")


class CpuTime:
    """Adds up user and system time of a process tree while a `with` block runs.

    A descendant counts once it was seen, also after its parent has ended.
    """

    def __init__(self, process: int) -> None:
        self._process = process
        self._seconds: dict[int, float] = {}
        self._ended = threading.Event()
        self._watcher = threading.Thread(target=self._watch, name="cpu", daemon=True)

    def __enter__(self) -> CpuTime:
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

    def seconds(self) -> float:
        """Seconds of all cores together, so far."""
        return sum(self._seconds.values())

    def _watch(self) -> None:
        while True:
            self._look()
            if self._ended.wait(_INTERVAL):
                return

    def _look(self) -> None:
        found: dict[int, tuple[int, float]] = {}
        for folder in _PROC.glob("[0-9]*"):
            try:
                # The name, in brackets, may hold blanks.
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            parent, used = int(fields[1]), (int(fields[11]) + int(fields[12])) / _TICKS
            found[int(folder.name)] = (parent, used)
        tree, grown = {self._process, *self._seconds}, True
        while grown:
            children = {one for one, (parent, _) in found.items() if parent in tree} - tree
            tree |= children
            grown = bool(children)
        self._seconds |= {one: found[one][1] for one in tree if one in found}
