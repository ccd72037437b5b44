"""The memory that this machine has left, and what processes hold of it while they work."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

__all__ = ["Memory", "free_memory", "held"]

_PROC = Path("/proc")
_CGROUP = Path("/sys/fs/cgroup")
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


def free_memory() -> int:
    """Bytes that processes here can still take: of the machine, and of its control groups.

    Pages of files that are cached count as free.
    """
    return max(0, min([_of_machine(), *_of_groups()]))


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


def _of_machine() -> int:
    with contextlib.suppress(OSError, KeyError):
        return _table(_PROC / "meminfo")["MemAvailable:"] << 10
    with contextlib.suppress(ValueError, OSError):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")  # macOS


def _of_groups() -> Iterator[int]:
    """What each control group of this process leaves, those above it too (cgroup v1 and v2)."""
    with contextlib.suppress(OSError):
        for line in (_PROC / "self" / "cgroup").read_text().splitlines():
            _, kinds, below = line.split(":", 2)
            if kinds in ("", "memory"):
                root = _CGROUP if not kinds else _CGROUP / kinds
                here = root / below.strip("/")
                for folder in (here, *here.parents):
                    if folder.is_relative_to(root):
                        yield from _left(folder)


def _left(folder: Path) -> Iterator[int]:
    for limit, used, cached in (
        ("memory.max", "memory.current", ("inactive_file", "active_file")),
        (
            "memory.limit_in_bytes",
            "memory.usage_in_bytes",
            ("total_inactive_file", "total_active_file"),
        ),
    ):
        with contextlib.suppress(OSError, ValueError, KeyError):
            most = int((folder / limit).read_text())  # "max" where there is none
            held = int((folder / used).read_text())
            stat = _table(folder / "memory.stat")
            yield most - held + sum(stat[name] for name in cached)


def _table(path: Path) -> dict[str, int]:
    rows = (line.split() for line in path.read_text().splitlines())
    return {row[0]: int(row[1]) for row in rows if len(row) > 1}
