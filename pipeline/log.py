"""How a stage reports its progress. Stages print nothing: whoever runs them shows it."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any, Protocol

__all__ = ["Progress", "Quiet", "SentProgress", "print_note"]

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


def print_note(text: str) -> None:
    """Print one line to stderr, such as the new name of a config key."""
    print(f"embedmill: {text}", file=sys.stderr)
