"""A stage as a command of a scheduler's task: its words, its exit code and its last line.

For schedulers whose environment has none of the packages that embedmill itself needs: only the
standard library is imported here.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import IO, Any

__all__ = [
    "FAIL_CODES",
    "GROUPS",
    "RETRY_CODES",
    "STAGES",
    "Command",
    "failure_of",
    "last_result",
    "stage_options",
]

# Stages that usually run in one place. As `embedmill.schemas.stages`, which needs more packages.
GROUPS = {
    "data": ("events", "vocab", "shards"),
    "train": ("train",),
    "finish": ("export", "index", "evaluate", "report"),
}
STAGES = tuple(stage for group in GROUPS.values() for stage in group)

# Exit codes after which the same command may succeed: the machine or the store (7), another process
# that runs the run (8), Ctrl-C (130), SIGKILL (137), SIGTERM (143). See docs/guides/errors.md.
RETRY_CODES = frozenset({7, 8, 130, 137, 143})
# Those after which it would fail in the same way. Other codes are of Spark, Ray or the shell.
FAIL_CODES = frozenset({2, 3, 4, 5, 6, 70})

_STOP_SECONDS = 60.0  # to end its workers after SIGTERM


def stage_options(
    config: str, stage: str, variables: Mapping[str, str], overrides: Sequence[str]
) -> list[str]:
    """Words after `embedmill run` or a job file that bring one stage up to date.

    Args:
        config: path or URL of the TOML.
        stage: the stage.
        variables: values of `--var`.
        overrides: `section.key=value` of `--set`.
    """
    words = [config, "--from", stage, "--to", stage]
    for name, value in variables.items():
        words += ["--var", f"{name}={value}"]
    for override in overrides:
        words += ["--set", override]
    return words


def last_result(output: str) -> dict[str, Any]:
    """The `RunResult` that a command printed last, among other lines; empty where there is none."""
    for line in reversed(output.splitlines()):
        if line.startswith("{"):
            try:
                result = json.loads(line)
            except ValueError:
                continue
            if isinstance(result, dict) and "exit_code" in result and "stages" in result:
                return result
    return {}


def failure_of(code: int | None, result: Mapping[str, Any], what: str) -> str:
    """A sentence that says why a command failed.

    Args:
        code: its exit code; None where it was lost with its machine.
        result: its `RunResult`, or empty.
        what: the beginning of the sentence.
    """
    failure = result.get("failure") or {}
    said = " ".join(filter(None, (failure.get("what"), failure.get("todo"))))
    ended = "no exit code" if code is None else f"exit code {code}"
    return f"{what} ended with {ended}" + (f": {said}" if said else "")


class Command:
    """A command that runs, with its stderr logged line by line."""

    def __init__(
        self, words: Sequence[str], environment: Mapping[str, str], log: Callable[[str], None]
    ) -> None:
        """Start it.

        Args:
            words: of the command.
            environment: variables besides those of this process.
            log: is given the lines of its stderr, in another thread.

        Raises:
            FileNotFoundError: there is no such command.
        """
        self._process = subprocess.Popen(
            words,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            env={**os.environ, **environment},
        )
        assert self._process.stderr is not None
        self._logging = threading.Thread(
            target=_each, args=(self._process.stderr, log), daemon=True
        )
        self._logging.start()

    def wait(self) -> tuple[int, str]:
        """Exit code as of a shell (128 + signal) and stdout."""
        assert self._process.stdout is not None
        with self._process.stdout as stdout:
            output = stdout.read()
        code = self._process.wait()
        self._logging.join(_STOP_SECONDS)
        return (128 - code if code < 0 else code), output

    def stop(self) -> None:
        """SIGTERM, and SIGKILL if it does not end: finished stages and checkpoints are kept."""
        if self._process.poll() is not None:
            return
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()


def _each(lines: IO[str], log: Callable[[str], None]) -> None:
    with lines:
        for line in lines:
            log(line.rstrip())
