"""What the training workers have to say, until the driver asks for it.

A module of its own, so that the actor's process imports neither torch nor Ray Train.
"""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.errors import EmbedmillError

__all__ = ["Mail", "Mailbox"]


@dataclass(frozen=True)
class Mail:
    """What came since the last look; `error` stays once it is there."""

    latest: tuple[int, int | None, str, dict[str, float]] | None
    notes: tuple[str, ...]
    error: EmbedmillError | None


class Mailbox:
    """An actor between the workers and the driver. Nobody waits for it."""

    def __init__(self) -> None:
        self._mail = Mail(None, (), None)

    def update(self, done: int, total: int | None, unit: str, facts: dict[str, float]) -> None:
        """So much is done; only the latest word counts."""
        self._mail = Mail((done, total, unit, facts), self._mail.notes, self._mail.error)

    def note(self, text: str) -> None:
        """One line for a person."""
        self._mail = Mail(self._mail.latest, (*self._mail.notes, text), self._mail.error)

    def fail(self, error: EmbedmillError) -> None:
        """Training must end; the first error counts."""
        self._mail = Mail(self._mail.latest, self._mail.notes, self._mail.error or error)

    def failed(self) -> bool:
        """Whether training must end."""
        return self._mail.error is not None

    def take(self) -> Mail:
        """Everything since the last look."""
        mail, self._mail = self._mail, Mail(None, (), self._mail.error)
        return mail
