"""What this machine has left for training: memory, disk, cores."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from pathlib import Path

from embedmill.pipeline.config import Config
from embedmill.pipeline.memory import free_memory
from embedmill.pipeline.store.run import Run
from embedmill.pipeline.train.resources.budget import Free

__all__ = ["free_now", "scratch_of", "workers_here"]


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


def workers_here(config: Config) -> int:
    """Workers that this machine alone would train with."""
    train, cpus = config.train, os.cpu_count() or 1
    least, most = train.worker_range
    room = min(cpus // train.threads, config.run.partitions)
    if train.launcher == "inline":
        return 1
    return max(least, room if most is None else min(room, most))


def _bytes(path: Path) -> int:
    with contextlib.suppress(OSError):  # a worker of a driver that was killed may still tidy up
        return path.stat().st_size if path.is_file() else 0
    return 0


def _existing(path: Path) -> Path:
    """The folder, or the first above it that exists."""
    return next(p for p in (path, *path.absolute().parents) if p.exists())


def _device(path: Path) -> int:
    return _existing(path).stat().st_dev
