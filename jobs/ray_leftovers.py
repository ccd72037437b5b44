"""What a Ray of ours has left whose driver was killed: its processes and its folder.

Ray's agents go on without their driver, and nobody removes its folder. So the folder names its
driver, and the next start of Ray looks for folders whose driver is gone.
"""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

from embedmill.pipeline.store.process import is_running, machine, started_at

__all__ = ["PREFIX", "end_processes", "name_driver", "sweep"]

PREFIX = "embedmill-"  # of folders of Ray
_OWNER = "driver"


def name_driver(folder: Path) -> None:
    """Note in a folder of Ray that this process is its driver."""
    pid = os.getpid()
    (folder / _OWNER).write_text(f"{pid}\n{started_at(pid)}\n{machine()}\n", encoding="utf-8")


def sweep(base: Path) -> list[Path]:
    """End the processes, and remove the folders, of drivers that are gone; returns the folders.

    Only folders of this user are looked at, and only processes that name such a folder are ended.
    """
    found = [folder for folder in base.glob(f"{PREFIX}*") if _is_left(folder)]
    for folder in found:
        end_processes(folder)
        shutil.rmtree(folder, ignore_errors=True)
    return found


def end_processes(folder: Path) -> None:
    """End the processes of a Ray whose folder this is."""
    for pid in _processes_of(folder):
        try:
            os.kill(pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            continue


def _is_left(folder: Path) -> bool:
    """Whether a folder is ours and its driver is gone."""
    try:
        if folder.is_symlink() or folder.stat().st_uid != os.getuid():
            return False
        pid, started, where = (folder / _OWNER).read_text(encoding="utf-8").splitlines()
        return where == machine() and not is_running(int(pid), started)
    except (OSError, ValueError):
        return False


def _processes_of(folder: Path) -> list[int]:
    """Processes whose command line names a folder, and those of Ray with a file of it open.

    Ray's agents and workers have titles in place of their command lines, but write logs there.
    """
    named, found = f"{folder}/".encode(), list[int]()
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            line = (entry / "cmdline").read_bytes()
            is_ours = named in line or (line.startswith(b"ray::") and _has_open(entry, folder))
        except OSError:
            continue
        if is_ours and int(entry.name) != os.getpid():
            found.append(int(entry.name))
    return found


def _has_open(process: Path, folder: Path) -> bool:
    """Whether a process has a file below a folder open."""
    for descriptor in (process / "fd").iterdir():
        try:
            if os.readlink(descriptor).startswith(f"{folder}/"):
                return True
        except OSError:  # closed meanwhile
            continue
    return False
