"""Processor time of a process with all its descendants, those that have ended included."""

from __future__ import annotations

import os
from pathlib import Path

from embedmill.pipeline.memory import descendants

__all__ = ["CpuTime"]

_PROC = Path("/proc")
# Fields of /proc/PID/stat after the name: utime, stime, cutime, cstime (proc(5), 14 to 17).
_TIMES = slice(11, 15)


class CpuTime:
    """Seconds of processors since this was made, user and system; none without /proc.

    A process that ended counts once its parent has waited for it; processes of other machines and
    those that do not descend from this one do not.
    """

    def __init__(self) -> None:
        self._before = _ticks()

    def measured(self) -> dict[str, float]:
        """{"cpu_seconds": so far}; empty where it is not known."""
        ticks = _ticks() - self._before
        return {"cpu_seconds": round(ticks / os.sysconf("SC_CLK_TCK"), 2)} if ticks > 0 else {}


def _ticks() -> int:
    return sum(_ticks_of(process) for process in descendants(os.getpid()))


def _ticks_of(process: int) -> int:
    try:
        text = (_PROC / str(process) / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return 0
    return sum(int(number) for number in text.rpartition(")")[2].split()[_TIMES])
