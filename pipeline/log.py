"""How a stage tells how far it is. Stages are silent: whoever runs them shows it."""

from __future__ import annotations

from typing import Any, Protocol

__all__ = ["Progress", "Quiet"]


class Progress(Protocol):
    """Receives what a running stage has to say; cheap to call, from one thread."""

    def update(self, done: int, total: int | None, unit: str, **facts: float) -> None:
        """So much of the stage is done.

        Args:
            done: units finished since the stage began.
            total: units in all, or None where it is not known.
            unit: what is counted, in the plural ("rows", "pairs", "users").
            facts: figures beside it, such as loss=0.31 or epoch=2.
        """

    def note(self, text: str) -> None:
        """One line for a person, such as a result of an epoch."""

    def record(self, line: dict[str, Any]) -> None:
        """A line of the stage's log that has just been written, for whoever plots it."""


class Quiet:
    """Says nothing."""

    def update(self, done: int, total: int | None, unit: str, **facts: float) -> None:
        """Do nothing."""

    def note(self, text: str) -> None:
        """Do nothing."""

    def record(self, line: dict[str, Any]) -> None:
        """Do nothing."""
