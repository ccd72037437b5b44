"""Where a worker's time goes: seconds by phase of a step."""

from __future__ import annotations

import time
from collections.abc import Callable

__all__ = ["PHASES", "PhaseTimer"]

# In the order of a step; time outside all of them is reported as "other".
PHASES = ("wait", "lookup", "exchange", "loss", "update", "checkpoint", "validate")


class PhaseTimer:
    """Adds up seconds by phase: `with timer("lookup"): ...`.

    Time in a nested phase counts for the inner one only, so no second counts twice: the
    exchanges of a lookup are "exchange", waiting for slower workers included. Entering and
    leaving a phase takes about a microsecond. Seconds are measured on the host: CUDA kernels
    run asynchronously, and their time appears in the phase in which the host waits for them.
    """

    def __init__(self, now: Callable[[], float] = time.perf_counter) -> None:
        self._now = now
        self._seconds = dict.fromkeys(PHASES, 0.0)
        self._phases = {name: _Phase(self, name) for name in PHASES}
        self._running: list[str] = []
        self._since = self._lap_start = now()

    def __call__(self, phase: str) -> _Phase:
        """A context manager for a phase; KeyError for a name that is not in PHASES."""
        return self._phases[phase]

    def lap(self) -> tuple[float, dict[str, float]]:
        """Total seconds and seconds by phase since the last lap; starts the next lap."""
        now = self._credit()
        total, by_phase = now - self._lap_start, self._seconds
        self._lap_start, self._seconds = now, dict.fromkeys(PHASES, 0.0)
        return total, by_phase

    def _credit(self) -> float:
        """Add the time since the last call to the innermost running phase."""
        now = self._now()
        if self._running:
            self._seconds[self._running[-1]] += now - self._since
        self._since = now
        return now

    def _enter(self, name: str) -> None:
        self._credit()
        self._running.append(name)

    def _leave(self) -> None:
        self._credit()
        self._running.pop()


class _Phase:
    def __init__(self, timer: PhaseTimer, name: str) -> None:
        self._timer = timer
        self._name = name

    def __enter__(self) -> None:
        self._timer._enter(self._name)

    def __exit__(self, *_: object) -> None:
        self._timer._leave()
