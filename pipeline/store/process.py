"""Which process this is, and whether another one of this machine is still there."""

from __future__ import annotations

import os
import socket
from pathlib import Path

__all__ = ["is_running", "machine", "started_at"]

_PROC = Path("/proc")


def machine() -> str:
    """What names the processes that this one can see: a boot and a namespace of process ids.

    Containers of one machine have namespaces of their own, and may have the same host name.
    """
    try:
        boot = (_PROC / "sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink(_PROC / 'self/ns/pid')}"
    except OSError:
        return f"host {socket.gethostname()}"


def started_at(pid: int) -> str:
    """When a process started, in clock ticks since boot; empty where that is not known.

    Process ids are used again; an id with this time is not.
    """
    try:
        text = (_PROC / str(pid) / "stat").read_text(errors="replace")
    except OSError:
        return ""
    return text.rpartition(")")[2].split()[19]  # field 22; the name in brackets may hold blanks


def is_running(pid: int, started: str) -> bool:
    """Whether the process of this id that started then is running, or stopped; not as a zombie."""
    if not _PROC.is_dir():
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            return True
        return True
    try:
        text = (_PROC / str(pid) / "stat").read_text(errors="replace")
    except OSError:
        return False
    fields = text.rpartition(")")[2].split()
    return fields[0] not in "ZX" and (not started or fields[19] == started)
