"""How a stage reports its progress. Stages print nothing: whoever runs them shows it.

What a command says goes to people as text, or, with `--log json`, to programs: each line of stderr
is then a JSON object with `time` (ISO 8601, UTC), `run`, `stage`, `event` and `counters`, and what
else belongs to the event.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Protocol

__all__ = [
    "LOG_FORMATS",
    "Progress",
    "Quiet",
    "SentProgress",
    "log_event",
    "logs_json",
    "name_run",
    "print_note",
    "set_log_format",
]

LOG_FORMATS = ("text", "json")

_INTERVAL = 0.2  # seconds between two updates that are sent


class Progress(Protocol):
    """Receives the progress of a running stage; calls are cheap, and come from one thread."""

    def update(self, done: int, total: int | None, unit: str, **facts: float) -> None:
        """How much of the stage is done.

        Args:
            done: units finished since the stage began.
            total: units in all, or None where it is not known.
            unit: what is counted, in the plural ("rows", "pairs", "users").
            facts: figures to show beside it, such as loss=0.31 or epoch=2.
        """

    def note(self, text: str) -> None:
        """Show one line, such as the result of an epoch."""

    def record(self, line: dict[str, Any]) -> None:
        """Take a line of the stage's log that has just been written, for trackers that plot it."""


class Quiet:
    """A `Progress` that shows nothing."""

    def update(self, done: int, total: int | None, unit: str, **facts: float) -> None:
        """Do nothing."""

    def note(self, text: str) -> None:
        """Do nothing."""

    def record(self, line: dict[str, Any]) -> None:
        """Do nothing."""


class SentProgress:
    """A worker's `Progress`, sent to its driver: updates at intervals, everything else at once."""

    def __init__(
        self,
        update: Callable[[int, int | None, str, dict[str, float]], object],
        note: Callable[[str], object],
        record: Callable[[dict[str, Any]], object],
    ) -> None:
        """A progress that sends.

        Args:
            update: sends the arguments of `Progress.update`, the facts as a dict.
            note: sends that of `Progress.note`.
            record: sends that of `Progress.record`.
        """
        self._update, self._note, self._record = update, note, record
        self._sent = 0.0

    def update(self, done: int, total: int | None, unit: str, **facts: float) -> None:
        """See `Progress.update`."""
        now = time.monotonic()
        if now - self._sent >= _INTERVAL:
            self._sent = now
            self._update(done, total, unit, facts)

    def note(self, text: str) -> None:
        """See `Progress.note`."""
        self._note(text)

    def record(self, line: dict[str, Any]) -> None:
        """See `Progress.record`."""
        self._record(line)


class _Format:
    """How this process logs; a command line sets it once, before anything is said."""

    json = False
    run: str | None = None


def set_log_format(name: str) -> str:
    """Choose one of `LOG_FORMATS`, and forget the run; returns its name.

    Raises:
        ValueError: there is no such format.
    """
    if name not in LOG_FORMATS:
        raise ValueError(f"'{name}' is not known; allowed: {', '.join(LOG_FORMATS)}")
    _Format.json, _Format.run = name == "json", None
    return name


def logs_json() -> bool:
    """Whether each line is to be a JSON object."""
    return _Format.json


def name_run(name: str) -> None:
    """Name the run that events from here on belong to."""
    _Format.run = name


def log_event(
    event: str, *, stage: str | None = None, counters: Mapping[str, int] | None = None, **more: Any
) -> None:
    """Write an event as a line of JSON to stderr.

    Args:
        event: what happened: "started", "progress", "built", "up to date", "note", "failed".
        stage: the stage that it belongs to.
        counters: rows by what became of them, of a finished stage.
        more: what else belongs to it, as JSON values.
    """
    line = {
        "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "run": _Format.run,
        "stage": stage,
        "event": event,
        "counters": dict(counters or {}),
        **more,
    }
    print(json.dumps(line, ensure_ascii=False), file=sys.stderr, flush=True)


def print_note(text: str) -> None:
    """Print one line to stderr, such as the new name of a config key."""
    if logs_json():
        log_event("note", text=text)
    else:
        print(f"embedmill: {text}", file=sys.stderr)
