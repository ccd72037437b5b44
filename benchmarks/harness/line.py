"""The command `embedmill`, as a benchmark calls it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from embedmill.pipeline.store.run import published

__all__ = ["COMMAND", "is_published", "metrics", "run", "wait_for"]

_LAST = 20  # lines that a failed command has said last, which are repeated

COMMAND = (sys.executable, "-m", "embedmill")


def run(config: Path, sets: Sequence[str] = (), *, last: str = "report") -> None:
    """Run a TOML up to a stage, with `section.key=value` of `sets` laid over it."""
    words = [word for one in sets for word in ("--set", one)]
    command = [*COMMAND, "run", str(config), "--to", last, *words]
    wait_for(subprocess.Popen(command, stdout=sys.stderr, stderr=subprocess.PIPE, text=True))


def wait_for(process: subprocess.Popen[str]) -> None:
    """Pass on what a command says on stderr, which is a pipe, until it has ended.

    Raises:
        SystemExit: it failed: with its command, exit code or signal, and what it said last.
    """
    assert process.stderr is not None
    last: deque[str] = deque(maxlen=_LAST)
    for line in process.stderr:
        sys.stderr.write(line)
        last.append(line)
    if code := process.wait():
        ended = f"by {signal.Signals(-code).name}" if code < 0 else f"with code {code}"
        assert isinstance(process.args, list)
        words = " ".join(map(str, process.args))
        raise SystemExit(f"{words}\nended {ended}; it said last:\n{''.join(last)}")


def is_published(root: str, name: str) -> bool:
    """Whether a run is the published one of its root, and every file is what its manifest says."""
    verified = subprocess.run(
        [*COMMAND, "verify", f"{root}/{name}"], stdout=sys.stderr, check=False
    )
    pointer = published(root)
    return verified.returncode == 0 and pointer is not None and pointer.run == name


def metrics(folder: str) -> dict[str, Any]:
    """What `embedmill metrics` says of the run in `folder`."""
    command = [*COMMAND, "metrics", folder, "--json"]
    answer = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, Any] = json.loads(answer.stdout)
    return found
