"""What this machine has free for training: memory, disk, cores."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from embedmill.pipeline.config import Config, TrainConfig
from embedmill.pipeline.memory import free_memory
from embedmill.pipeline.store.run import Run
from embedmill.schemas.checkpoints import FOLDER

__all__ = [
    "FreeResources",
    "all_threads",
    "free_resources",
    "launcher_of",
    "local_workers",
    "scratch_folder",
]


@dataclass(frozen=True)
class FreeResources:
    """Free bytes of this machine.

    Args:
        memory: for this process and the workers that it starts.
        run: on the disk of the run; None where the run is not on a local disk.
        scratch: on the disk of memory-mapped tables.
        one_disk: whether both are the same disk.
    """

    memory: int
    run: int | None
    scratch: int
    one_disk: bool


def free_resources(run: Run) -> FreeResources:
    """Free bytes here. The run's own checkpoints count as free: they will be replaced."""
    scratch, storage = scratch_folder(run), run.storage.at("train")
    on_run_disk = None
    if storage.is_local:
        folder = storage.local_path(FOLDER)
        stored = sum(map(_file_size, folder.rglob("*")))
        on_run_disk = shutil.disk_usage(_existing(folder)).free + stored
    on_scratch_disk = shutil.disk_usage(_existing(scratch)).free
    one_disk = on_run_disk is not None and _device(scratch) == _device(storage.local_path(""))
    return FreeResources(free_memory(), on_run_disk, on_scratch_disk, one_disk)


def scratch_folder(run: Run) -> Path:
    """The folder of memory-mapped tables: `train.scratch`, the run's own, or a temporary one."""
    if run.config.train.scratch:
        return Path(run.config.train.scratch).expanduser()
    storage = run.storage.at("train")
    storage.refuse_links("")
    return storage.local_path("") if storage.is_local else Path(tempfile.gettempdir())


def launcher_of(config: TrainConfig) -> Literal["inline", "processes", "ray"]:
    """What starts the workers: `train.launcher`, where "auto" is Ray if this process has one.

    Ray is there if RAY_ADDRESS names a cluster or the program has called `ray.init`.
    """
    if config.launcher != "auto":
        return config.launcher
    ray = sys.modules.get("ray")
    joined = ray is not None and ray.is_initialized()
    return "ray" if os.environ.get("RAY_ADDRESS") or joined else "processes"


def all_threads(config: Config) -> int:
    """Threads of a training in this process that has the cores of all workers."""
    return max(config.train.threads, config.train.threads * local_workers(config))


def local_workers(config: Config) -> int:
    """How many workers a training on this machine alone has."""
    train, cpus = config.train, os.cpu_count() or 1
    least, most = train.worker_range
    room = min(cpus // train.threads, config.run.partitions)
    if launcher_of(train) == "inline":
        return 1
    return max(least, room if most is None else min(room, most))


def _file_size(path: Path) -> int:
    with contextlib.suppress(OSError):  # workers of a killed driver may still remove files
        return path.stat().st_size if path.is_file() else 0
    return 0


def _existing(path: Path) -> Path:
    """The folder, or the nearest parent that exists."""
    return next(p for p in (path, *path.absolute().parents) if p.exists())


def _device(path: Path) -> int:
    return _existing(path).stat().st_dev
