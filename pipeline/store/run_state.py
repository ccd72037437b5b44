"""What the driver of a run did last: `state.json` tells running, failed and stopped apart."""

from __future__ import annotations

import os
import socket
from datetime import UTC, datetime
from typing import Literal

from embedmill.pipeline.store.process import is_running, machine, started_at
from embedmill.pipeline.store.run import Run
from embedmill.pipeline.store.stored_json import UNREADABLE
from embedmill.schemas.run import STATE, Failure, RunState

__all__ = ["read_state", "write_state"]


def write_state(
    run: Run,
    state: Literal["running", "done", "failed", "stopped"],
    stage: str | None,
    failure: Failure | None = None,
) -> RunState:
    """Store what this process does with a run.

    Args:
        run: its folder exists.
        state: of the driver.
        stage: the one that is being built, or that failed.
        failure: why it failed.
    """
    written = RunState(
        state=state,
        stage=stage,
        updated=datetime.now(UTC).isoformat(timespec="seconds"),
        host=socket.gethostname(),
        machine=machine(),
        pid=os.getpid(),
        started=started_at(os.getpid()),
        failure=failure,
    )
    run.storage.write(STATE.path, STATE.encode(written))
    return written


def read_state(run: Run) -> RunState | None:
    """What the driver of a run said last; None where it said nothing, or the file is damaged.

    "running" becomes "killed" where the driver ran on this machine and its process is gone.
    """
    try:
        state = STATE.decode(run.storage.read(STATE.path))
    except (FileNotFoundError, NotADirectoryError, *UNREADABLE):
        return None
    is_here = state.state == "running" and state.machine == machine()
    if is_here and not is_running(state.pid, state.started):
        return state.model_copy(update={"state": "killed"})
    return state
