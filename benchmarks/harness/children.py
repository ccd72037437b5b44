"""A benchmark's own functions in a process of their own, measured from outside.

The script calls `serve(FUNCTIONS)` first in its `main`, and `call(__file__, name, argument)` where
it wants one of them run. Argument and result are JSON; the result is the child's last line.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from embedmill.pipeline.memory import PeakMemory
from harness.memory_limit import limited

__all__ = ["Result", "call", "command_of", "serve"]

_FLAG = "--child"
_NO_LIMIT = 1 << 50


@dataclass(frozen=True)
class Result:
    """What a child returned, and its memory in bytes.

    `resident_bytes` leaves out pages of files; `peak_bytes` counts them as far as the limit
    does, and is 0 where that is not known. `limited_by` says how the limit was held.
    """

    value: dict[str, Any]
    resident_bytes: float
    peak_bytes: int
    limited_by: str


def serve(functions: Mapping[str, Callable[[Any], Mapping[str, Any]]]) -> None:
    """Where this process is a child: run its function, print the result, and end."""
    if sys.argv[1:2] == [_FLAG]:
        name, argument = sys.argv[2], json.loads(sys.argv[3])
        print(json.dumps(dict(functions[name](argument))), flush=True)
        sys.exit(0)


def command_of(script: str, name: str, argument: Any) -> list[str]:
    """The command that runs a function of `script`, as `call` does."""
    return [sys.executable, script, _FLAG, name, json.dumps(argument)]


def call(script: str, name: str, argument: Any, *, limit_bytes: int = 0) -> Result:
    """Run a function of `script` in a process of its own.

    Args:
        script: the benchmark's `__file__`.
        name: which of the functions that it serves.
        argument: what the function is given, as JSON.
        limit_bytes: of memory for the child and its children; 0 for none.

    Raises:
        SystemExit: the child failed; with its exit code.
    """
    command = command_of(script, name, argument)
    with limited(limit_bytes or _NO_LIMIT) as limit:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, preexec_fn=limit.enter
        )
        with PeakMemory(process.pid) as memory:
            output = process.communicate()[0]
        resident, peak = memory.measured().get("peak_bytes", 0), limit.peak()
    if process.returncode:
        raise SystemExit(process.returncode)
    return Result(json.loads(output.splitlines()[-1]), resident, peak, limit.name)
