"""`embedmill` in a process whose machine has faults, as `STORM_FAULTS` (JSON) says.

machine   name of the machine that a lease is taken for: drivers on two do not see each other
clock     seconds by which the wall clock is wrong
jump      [after, seconds]: the clock jumps by seconds, so long after the start
full      [first, many]: the disk is full at so many syncs of files, from the first one on
"""

from __future__ import annotations

import errno
import itertools
import json
import os
import time
from typing import Any

from embedmill.jobs.cli import main
from embedmill.pipeline.store import lease

# A second of the storm is a minute of a lease.
lease.BEAT, lease.STALE, lease.WATCHED, lease.SETTLED = 0.3, 2.5, 1.0, 0.2


def plant(faults: dict[str, Any]) -> None:
    """Let this process have the faults."""
    if "machine" in faults:
        lease.machine = lambda: faults["machine"]
    plain, start = time.time, time.monotonic()
    after, jump = faults.get("jump", (0, 0))
    offset = faults.get("clock", 0)

    def clock() -> float:
        return plain() + offset + (jump if time.monotonic() - start > after else 0)

    if offset or jump:
        time.time = clock
    if "full" in faults:
        _fill(*faults["full"])


def _fill(first: int, many: int) -> None:
    plain, numbers = os.fsync, itertools.count()

    def fsync(descriptor: Any) -> None:
        if first <= next(numbers) < first + many:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        plain(descriptor)

    os.fsync = fsync


if __name__ == "__main__":
    plant(json.loads(os.environ.get("STORM_FAULTS", "{}")))
    main()
