"""The operations that change files, one after the other, and a world that stops at one of them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

__all__ = ["OUTCOMES", "StoppedWorldError", "World"]

# What becomes of the operation at which the world stops.
OUTCOMES = ("lost", "done")


class StoppedWorldError(OSError):
    """The process has ended at this operation; nothing that it does later has an effect."""


@dataclass
class World:
    """Counts changes of files, and stops at change number `stop`, from 0; -1: at none.

    With outcome "lost" the change at which it stops does not happen, with "done" it happens, but
    is reported as failed.
    """

    stop: int = -1
    outcome: str = "lost"
    log: list[str] = field(default_factory=list)
    stopped: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def change(self, kind: str, name: str, change: Callable[[], object]) -> None:
        """Do a change, or stop at it."""
        with self._lock:
            if self.stopped:
                raise StoppedWorldError(f"stopped before {kind} {name}")
            number = len(self.log)
            self.log.append(f"{kind} {name}")
            if number != self.stop:
                change()
                return
            self.stopped = True
            if self.outcome == "done":
                change()
            raise StoppedWorldError(f"stopped at {kind} {name}")
