"""Where a worker's time goes: seconds by phase of a step."""

from __future__ import annotations

import time
from collections.abc import Callable

__all__ = ["PHASES", "Clock"]

# In the order of a step; whatever is in none of them is "other".
PHASES = ("wait", "lookup", "exchange", "loss", "update", "checkpoint", "validate")


class Clock:
    """Adds up seconds by phase: `with clock("lookup"): ...`.

    A phase inside another is taken out of the outer one, so no second counts twice: the
    exchanges of a lookup are "exchange", waiting for slower workers included. Entering and
    leaving a phase takes about a microsecond. These are seconds of the host: on CUDA,
    which works on by itself, they fall where the host waits for it.
    """

    def __init__(self, now: Callable[[], float] = time.perf_counter) -> None:
        self._now = now
        self._seconds = dict.fromkeys(PHASES, 0.0)
        self._phases = {name: _Phase(self, name) for name in PHASES}
        self._running: list[str] = []
        self._since = self._began = now()

    def __call__(self, phase: str) -> _Phase:
        """What a `with` takes; KeyError for a name that is not in PHASES."""
        return self._phases[phase]

    def lap(self) -> tuple[float, dict[str, float]]:
        """Seconds in all and by phase since the last lap, and begin another."""
        now = self._turn()
        whole, parts = now - self._began, self._seconds
        self._began, self._seconds = now, dict.fromkeys(PHASES, 0.0)
        return whole, parts

    def _turn(self) -> float:
        """Credit what has passed to the innermost phase."""
        now = self._now()
        if self._running:
            self._seconds[self._running[-1]] += now - self._since
        self._since = now
        return now

    def _enter(self, name: str) -> None:
        self._turn()
        self._running.append(name)

    def _leave(self) -> None:
        self._turn()
        self._running.pop()


class _Phase:
    def __init__(self, clock: Clock, name: str) -> None:
        self._clock = clock
        self._name = name

    def __enter__(self) -> None:
        self._clock._enter(self._name)

    def __exit__(self, *_: object) -> None:
        self._clock._leave()
