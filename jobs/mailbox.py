"""What the training workers have to say, until the driver asks for it.

A module of its own, so that the actor's process imports neither torch nor Ray Train.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from embedmill.pipeline.errors import EmbedmillError

__all__ = ["Mail", "Mailbox"]


@dataclass(frozen=True)
class Mail:
    """What came since the last look; `error` stays once it is there."""

    latest: tuple[int, int | None, str, dict[str, float]] | None = None
    notes: tuple[str, ...] = ()
    records: tuple[dict[str, Any], ...] = ()
    error: EmbedmillError | None = None


class Mailbox:
    """An actor between the workers and the driver. Nobody waits for it."""

    def __init__(self) -> None:
        self._mail = Mail()

    def update(self, done: int, total: int | None, unit: str, facts: dict[str, float]) -> None:
        """So much is done; only the latest word counts."""
        self._mail = replace(self._mail, latest=(done, total, unit, facts))

    def note(self, text: str) -> None:
        """One line for a person."""
        self._mail = replace(self._mail, notes=(*self._mail.notes, text))

    def record(self, line: dict[str, Any]) -> None:
        """A line of the log."""
        self._mail = replace(self._mail, records=(*self._mail.records, line))

    def fail(self, error: EmbedmillError) -> None:
        """Training must end; the first error counts."""
        self._mail = replace(self._mail, error=self._mail.error or error)

    def failed(self) -> bool:
        """Whether training must end."""
        return self._mail.error is not None

    def take(self) -> Mail:
        """Everything since the last look."""
        mail, self._mail = self._mail, Mail(error=self._mail.error)
        return mail
