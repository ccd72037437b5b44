"""What a process and all that descend from it hold in memory."""

from __future__ import annotations

import threading
from pathlib import Path


class Memory(threading.Thread):
    """Looks at what a process and all below it hold that is not of files; `peak` in bytes."""

    def __init__(self, process: int) -> None:
        super().__init__(daemon=True)
        self._process = process
        self._over = threading.Event()
        self.peak = 0

    def run(self) -> None:
        while not self._over.wait(0.5):
            self.peak = max(self.peak, sum(map(_held, _family(self._process))))

    def stop(self) -> int:
        self._over.set()
        self.join()
        return self.peak


def _family(process: int) -> list[int]:
    """A process and all that descend from it."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it has ended
        children.setdefault(int(fields[1]), []).append(int(path.parent.name))
    found = [process]
    for one in found:
        found += children.get(one, [])
    return found


def _held(process: int) -> int:
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(x.split()[1]) << 10 for x in lines if x.startswith(("RssAnon", "RssShmem")))
