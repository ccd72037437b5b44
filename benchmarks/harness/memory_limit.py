"""A memory limit for a process and its children: a control group, or a limit of addresses."""

from __future__ import annotations

import contextlib
import os
import resource
import time
from collections.abc import Callable, Iterator
from pathlib import Path

_ROOT = Path("/sys/fs/cgroup")


class Limit:
    """How a limit is held: what to call in the child, and what it used at most (bytes)."""

    def __init__(self, name: str, enter: Callable[[], None], peak: Callable[[], int]) -> None:
        self.name = name
        self.enter = enter
        self.peak = peak


@contextlib.contextmanager
def limited(size: int) -> Iterator[Limit]:
    """A limit of `size` bytes; give `enter` to Popen as `preexec_fn`.

    In a control group (v1 or v2) the cached pages of files count, as they must for mapped
    tables. Where none can be made, memory that is not of files is limited: RLIMIT_DATA.
    """
    folder = _made(size)
    if folder is None:
        yield Limit("RLIMIT_DATA", lambda: resource.setrlimit(resource.RLIMIT_DATA, (size, size)),
                    lambda: 0)  # fmt: skip
        return
    old = (folder / "memory.limit_in_bytes").exists()

    def enter() -> None:
        (folder / "cgroup.procs").write_text(str(os.getpid()))

    def peak() -> int:
        name = "memory.max_usage_in_bytes" if old else "memory.peak"
        return int((folder / name).read_text())

    try:
        yield Limit(f"cgroup v{1 if old else 2}, page cache counted", enter, peak)
    finally:
        _removed(folder)


def _removed(folder: Path) -> None:
    """Remove the group once the last process has left it, which may be a moment after its end."""
    for _ in range(50):
        with contextlib.suppress(OSError):
            folder.rmdir()
            return
        time.sleep(0.1)


def _made(size: int) -> Path | None:
    """A new control group below this process's own, limited; None where that is not allowed."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, kinds, below = line.split(":", 2)
        root, limit = {
            "memory": (_ROOT / "memory", "memory.limit_in_bytes"),
            "": (_ROOT, "memory.max"),
        }.get(kinds, (None, ""))
        if root is None:
            continue
        folder = root / below.strip("/") / f"embedmill-{os.getpid()}"
        try:
            folder.mkdir()
        except OSError:
            continue
        try:
            (folder / limit).write_text(str(size))
        except OSError:
            folder.rmdir()
            continue
        return folder
    return None
