"""Seconds of the steps of a program, in a file that says how far it came; standard library only."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

__all__ = ["StepLog", "Steps"]


@dataclass(frozen=True)
class Steps:
    """What a file says: seconds of finished steps, figures, and the step that has not ended."""

    seconds: dict[str, float]
    figures: dict[str, float]
    unfinished: str


@dataclass(frozen=True)
class StepLog:
    """Appends a line of JSON to `path` when a step begins and when it ends."""

    path: Path

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Time what is done in the `with` block; a step that comes again is added up."""
        self.begin(name)
        began = time.perf_counter()
        yield
        self.seconds(name, time.perf_counter() - began)

    def begin(self, name: str) -> None:
        """Log that a step has begun."""
        self._append({"begun": name})

    def seconds(self, name: str, seconds: float) -> None:
        """Log a finished step that something else timed."""
        self._append({"step": name, "seconds": seconds})

    def figures(self, figures: Mapping[str, float]) -> None:
        """Log other figures by name."""
        self._append({"figures": dict(figures)})

    def read(self) -> Steps:
        """All that was logged so far; empty where the program has logged nothing."""
        steps = Steps({}, {}, "")
        if not self.path.exists():
            return steps
        unfinished = ""
        for line in map(json.loads, self.path.read_text(encoding="utf-8").splitlines()):
            if name := line.get("step", ""):
                steps.seconds[name] = steps.seconds.get(name, 0.0) + line["seconds"]
            steps.figures.update(line.get("figures", {}))
            unfinished = line.get("begun", "" if name else unfinished)
        return Steps(steps.seconds, steps.figures, unfinished)

    def _append(self, line: Mapping[str, object]) -> None:
        with self.path.open("a", encoding="utf-8") as out:
            out.write(json.dumps(line) + "\n")
