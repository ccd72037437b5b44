"""Free memory of this machine, and the peak memory of processes."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

__all__ = ["PeakMemory", "descendants", "free_memory", "oom_kills", "resident_bytes"]

_PROC = Path("/proc")
_CGROUP = Path("/sys/fs/cgroup")
_INTERVAL = 0.5  # seconds between measurements, which take a few milliseconds
# Not RssFile: the system can take back pages of files, such as memory-mapped tables.
_COUNTED = ("RssAnon:", "RssShmem:")


class PeakMemory:
    """Measures the memory of a process and its descendants while a `with` block runs.

    Processes on other machines are not measured. Without /proc there are no figures.
    """

    def __init__(self, process: int | None = None) -> None:
        """Measure the process of that id, or this one."""
        self._process = os.getpid() if process is None else process
        self._ended = threading.Event()
        self._watcher = threading.Thread(target=self._watch, name="memory", daemon=True)
        self._peak = 0

    def __enter__(self) -> PeakMemory:
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
        """{"peak_bytes": the greatest sum so far}; empty where it is not known."""
        self._measure()
        return {"peak_bytes": self._peak} if self._peak else {}

    def _watch(self) -> None:
        self._measure()
        while not self._ended.wait(_INTERVAL):
            self._measure()

    def _measure(self) -> None:
        self._peak = max(
            self._peak, sum(resident_bytes(process) for process in descendants(self._process))
        )


def free_memory() -> int:
    """Bytes that processes can still take, within the machine and its control groups.

    Cached pages of files count as free.
    """
    return max(0, min([_free_of_machine(), *_free_of_groups()]))


def oom_kills() -> int:
    """How many processes the kernel has killed for lack of memory since this machine started."""
    try:
        lines = (_PROC / "vmstat").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))


def resident_bytes(process: int) -> int:
    """Resident bytes of a process that belong to no file; 0 where it has ended."""
    try:
        lines = (_PROC / str(process) / "status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) << 10 for line in lines if line.startswith(_COUNTED))


def descendants(process: int) -> list[int]:
    """A process and all its descendants."""
    processes = [process]
    for one in processes:  # grows while it is read
        for path in (_PROC / str(one) / "task").glob("*/children"):
            try:
                processes += map(int, path.read_text(encoding="ascii").split())
            except OSError:
                continue  # the thread has ended
    return processes


def _free_of_machine() -> int:
    with contextlib.suppress(OSError, KeyError):
        return _table(_PROC / "meminfo")["MemAvailable:"] << 10
    with contextlib.suppress(ValueError, OSError):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")  # macOS


def _free_of_groups() -> Iterator[int]:
    """Free bytes of each control group of this process and of its parents (cgroup v1 and v2)."""
    with contextlib.suppress(OSError):
        for line in (_PROC / "self" / "cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers in ("", "memory"):
                root = _CGROUP if not controllers else _CGROUP / controllers
                group = root / path.strip("/")
                for folder in (group, *group.parents):
                    if folder.is_relative_to(root):
                        yield from _free_of_group(folder)


def _free_of_group(folder: Path) -> Iterator[int]:
    """Free bytes of a control group; none where it has no limit."""
    for limit, used, cached in (
        ("memory.max", "memory.current", ("inactive_file", "active_file")),
        (
            "memory.limit_in_bytes",
            "memory.usage_in_bytes",
            ("total_inactive_file", "total_active_file"),
        ),
    ):
        with contextlib.suppress(OSError, ValueError, KeyError):
            limit_bytes = int((folder / limit).read_text())  # "max" where there is none
            used_bytes = int((folder / used).read_text())
            stat = _table(folder / "memory.stat")
            yield limit_bytes - used_bytes + sum(stat[name] for name in cached)


def _table(path: Path) -> dict[str, int]:
    """Lines of "name number ..." by name."""
    rows = (line.split() for line in path.read_text().splitlines())
    return {row[0]: int(row[1]) for row in rows if len(row) > 1}
