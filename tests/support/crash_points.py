"""The operations that change files, one after the other, and a world that stops at one of them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

__all__ = ["StoppedWorldError", "World"]


class StoppedWorldError(OSError):
    """The process has ended at this operation; nothing that it does later has an effect."""


@dataclass
class World:
    """Counts changes of files, and stops at change number `stop`, from 0; -1: at none.

    With outcome "lost" the change at which it stops does not happen; with "half" half of the bytes
    were written, where the kind of root shows such bytes to anybody. With "done" the change happens
    and is reported as failed, and the world goes on; with "late" it goes on, too, and nobody sees
    the change before another one of the same file, or before `end`.

    Attributes:
        seen: is called after each change, with its name.
    """

    stop: int = -1
    outcome: str = "lost"
    log: list[str] = field(default_factory=list)
    stopped: bool = False
    seen: Callable[[str], None] = lambda _: None
    _late: tuple[str, Callable[[], object]] | None = None
    _lock: threading.RLock = field(default_factory=threading.RLock)

    def change(
        self,
        kind: str,
        name: str,
        change: Callable[[], object],
        half: Callable[[], object] | None = None,
    ) -> None:
        """Do a change, or stop at it."""
        with self._lock:
            if self.stopped:
                raise StoppedWorldError(f"stopped before {kind} {name}")
            number = len(self.log)
            self.log.append(f"{kind} {name}")
            if self._late is not None and self._late[0] == name:
                self.end()
            if number != self.stop:
                change()
                self.seen(self.log[-1])
                return
            if self.outcome == "late":
                self._late = (name, change)
                return
            if self.outcome == "done":
                change()
                raise OSError(f"failed at {kind} {name}, they say")
            self.stopped = True
            if self.outcome == "half" and half is not None:
                half()
            raise StoppedWorldError(f"stopped at {kind} {name}")

    def end(self) -> None:
        """Let a change that comes late be seen."""
        with self._lock:
            late, self._late = self._late, None
            if late is not None:
                late[1]()
