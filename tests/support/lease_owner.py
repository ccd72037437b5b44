"""A driver in a process of its own, as on another machine; it commits when it is told to.

python -m tests.support.lease_owner ROOT
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import pyarrow as pa

from embedmill.pipeline.errors import EmbedmillError
from embedmill.pipeline.store import lease
from embedmill.pipeline.store.artifact import Artifact
from embedmill.pipeline.store.process import machine, started_at
from embedmill.pipeline.store.run import Run
from embedmill.pipeline.store.storage import Storage
from embedmill.schemas.events import DATA, EVENTS
from embedmill.schemas.run import Lease, lease_of
from tests.support.worlds import config

ELSEWHERE = "another machine"
USERS = ("a", "b")


def plant(storage: Storage, **fields: Any) -> Lease:
    """The lease of another process: of this one's id and start, unless fields say otherwise."""
    given = {
        "fence": 1, "token": "planted", "host": "node7", "machine": machine(), "pid": os.getpid(),
        "started": started_at(os.getpid()), "since": "2026-11-28T10:00:00+00:00",
        "beat": time.time(), **fields,
    }  # fmt: skip
    owner, file = Lease.model_validate(given), lease_of(int(given["fence"]))
    storage.write(file.path, file.encode(owner))
    return owner


def events_of(run: Run, users: tuple[str, str]) -> Callable[[], Artifact]:
    """Write the events of two users; the function commits them."""
    out = run.writer("events")
    columns = [list(users), ["i", "i"], [1, 1], [1.0, 1.0], [None, None]]
    table = pa.table(dict(zip(EVENTS.names, columns, strict=True)), schema=EVENTS)
    out.write_table(DATA.path(0), table)
    counters = {"rows_in": 2, "events": 2, "rejected": 0, "merged": 0, "rejects_kept": 0}
    return partial(out.commit, counters)


def main() -> int:
    """Take the lease, write, wait for a line, commit; returns the exit code."""
    lease.machine = lambda: ELSEWHERE
    lease.BEAT = 0.02
    run = Run(config(sys.argv[1], "log.tsv"))
    try:
        with lease.drive(run.storage):
            commit = events_of(run, USERS)
            print("written", flush=True)
            sys.stdin.readline()
            commit()
    except EmbedmillError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
