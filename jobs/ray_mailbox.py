"""Messages of the training workers, kept until the driver takes them.

A module of its own, so that the actor's process imports neither torch nor Ray Train.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from embedmill.pipeline.errors import EmbedmillError

__all__ = ["Mailbox", "Messages"]


@dataclass(frozen=True)
class Messages:
    """What came since the driver last took messages.

    Args:
        latest: the latest progress: done, total, unit, facts.
        notes: lines for the user.
        records: lines of the log.
        error: the first error that ends training; it stays in later messages.
    """

    latest: tuple[int, int | None, str, dict[str, float]] | None = None
    notes: tuple[str, ...] = ()
    records: tuple[dict[str, Any], ...] = ()
    error: EmbedmillError | None = None


class Mailbox:
    """A Ray actor that holds the workers' messages for the driver; no worker waits for it."""

    def __init__(self) -> None:
        self._messages = Messages()

    def update(self, done: int, total: int | None, unit: str, facts: dict[str, float]) -> None:
        """Replace the latest progress.

        Args:
            done: units that are done.
            total: units in all; None where that is not known.
            unit: what is counted.
            facts: figures to show beside it.
        """
        self._messages = replace(self._messages, latest=(done, total, unit, facts))

    def note(self, text: str) -> None:
        """Add a line for the user."""
        self._messages = replace(self._messages, notes=(*self._messages.notes, text))

    def record(self, line: dict[str, Any]) -> None:
        """Add a line of the log."""
        self._messages = replace(self._messages, records=(*self._messages.records, line))

    def fail(self, error: EmbedmillError) -> None:
        """End training; only the first error is kept."""
        self._messages = replace(self._messages, error=self._messages.error or error)

    def failed(self) -> bool:
        """Whether training must end."""
        return self._messages.error is not None

    def take(self) -> Messages:
        """All messages since the last call."""
        taken, self._messages = self._messages, Messages(error=self._messages.error)
        return taken
