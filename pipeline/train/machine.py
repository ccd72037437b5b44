"""What this machine has left: memory, within the limits it was given, and disk."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from pipeline.config import Config
from pipeline.run import Run
from pipeline.train.capacity import Free

__all__ = ["free_memory", "free_now", "scratch_of", "workers_here"]

_CGROUP = Path("/sys/fs/cgroup")


def free_now(run: Run) -> Free:
    """Free bytes here; what the run's own training has stored is free: it is written over."""
    scratch, storage = scratch_of(run), run.storage.at("train")
    there = None
    if storage.is_local:
        folder = storage.local_path("checkpoints")
        there = shutil.disk_usage(_existing(folder)).free + sum(map(_bytes, folder.rglob("*")))
    free = shutil.disk_usage(_existing(scratch)).free
    one_disk = there is not None and _device(scratch) == _device(storage.local_path(""))
    return Free(free_memory(), there, free, one_disk)


def scratch_of(run: Run) -> Path:
    """The folder of mapped tables: the config's, the run's own, or a temporary one."""
    if run.config.train.scratch:
        return Path(run.config.train.scratch).expanduser()
    storage = run.storage.at("train")
    return storage.local_path("") if storage.is_local else Path(tempfile.gettempdir())


def free_memory() -> int:
    """Bytes that processes here can still take: of the machine, and of its control groups.

    Pages of files that are cached count as free.
    """
    return max(0, min([_of_machine(), *_of_groups()]))


def workers_here(config: Config) -> int:
    """Workers that this machine alone would train with."""
    train, cpus = config.train, os.cpu_count() or 1
    least, most = train.worker_range
    room = min(cpus // train.threads, config.run.partitions)
    if train.launcher == "inline":
        return 1
    return max(least, room if most is None else min(room, most))


def _of_machine() -> int:
    with contextlib.suppress(OSError, KeyError):
        return _table(Path("/proc/meminfo"))["MemAvailable:"] << 10
    with contextlib.suppress(ValueError, OSError):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")  # macOS


def _of_groups() -> Iterator[int]:
    """What each control group of this process leaves, those above it too (cgroup v1 and v2)."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
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


def _bytes(path: Path) -> int:
    with contextlib.suppress(OSError):  # a worker of a driver that was killed may still tidy up
        return path.stat().st_size if path.is_file() else 0
    return 0


def _existing(path: Path) -> Path:
    """The folder, or the first above it that exists."""
    return next(p for p in (path, *path.absolute().parents) if p.exists())


def _device(path: Path) -> int:
    return _existing(path).stat().st_dev
