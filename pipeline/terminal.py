"""What a person sees while a run goes on: a live line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.live import Live
from rich.text import Text

from embedmill.pipeline.store.artifact import Artifact
from embedmill.schemas.registry import CONTRACTS

__all__ = ["Terminal", "cut", "duration", "si", "summary"]

_EVERY_LIVE = 0.1  # seconds between redraws
_EVERY_PLAIN = 10.0  # seconds between plain lines


class Terminal:
    """Shows stages as they run; on a terminal when `file` is one, else as lines of a log."""

    def __init__(self, file: TextIO | None = None, *, quiet: bool = False) -> None:
        self._file = file or sys.stdout
        self._quiet = quiet
        self._console = Console(file=self._file, highlight=False)

    @property
    def live(self) -> bool:
        """Whether lines are redrawn in place."""
        return self._console.is_terminal and not self._quiet

    def say(self, text: str) -> None:
        """One line."""
        if not self._quiet:
            self._console.print(Text(text), soft_wrap=not self.live)
            self._file.flush()

    @contextmanager
    def stage(self, name: str) -> Iterator[_StageProgress]:
        """Show one stage until the block ends."""
        if not self.live:
            self.say(f"{name:<9} started")
            yield _StageProgress(name, self.say, None)
            return
        with Live(console=self._console, auto_refresh=False, transient=True) as live:
            progress = _StageProgress(name, self.say, live)
            progress.draw("")
            yield progress

    def finished(self, name: str, artifact: Artifact) -> None:
        """A stage has just been built."""
        line = f"{name:<9} {summary(artifact)}"
        self.say(f"{line:<66} {duration(artifact.manifest.seconds):>12}")

    def skipped(self, name: str, artifact: Artifact) -> None:
        """A stage was up to date."""
        line = f"{name:<9} {summary(artifact)}"
        self.say(f"{line:<66} {'up to date':>12}")


class _StageProgress:
    """A stage's `embedmill.pipeline.log.Progress`, drawn at most every so often."""

    def __init__(self, name: str, say: Callable[[str], None], live: Live | None) -> None:
        self._name = name
        self._say = say
        self._live = live
        self._drawn = time.perf_counter() if live is None else 0.0
        self._from: tuple[str, int, float] | None = None
        self._done = 0

    def update(self, done: int, total: int | None, unit: str, **facts: float) -> None:
        now = time.perf_counter()
        if self._from is None or self._from[0] != unit or done < self._done:
            self._from = (unit, done, now)
        self._done = done
        if now - self._drawn < (_EVERY_PLAIN if self._live is None else _EVERY_LIVE):
            return
        self._drawn = now
        # What an earlier attempt did, and the time it takes to start, say nothing of the speed.
        _, first, since = self._from
        rate = (done - first) / (now - since) if now > since else 0.0
        self.draw(progress_line(done, total, unit, rate, facts))

    def note(self, text: str) -> None:
        self._say(f"{'':<9} {text}")

    def record(self, line: dict[str, Any]) -> None:
        """Nothing to see: the live line has it."""

    def draw(self, text: str) -> None:
        """Show the stage's current line."""
        line = f"{self._name:<9} {text}".rstrip()
        if self._live is None:
            self._say(line)
        else:
            self._live.update(Text(line, overflow="ellipsis", no_wrap=True), refresh=True)


def progress_line(
    done: int, total: int | None, unit: str, rate: float, facts: dict[str, float]
) -> str:
    """'45 % · 1.2 M pairs · 310 k pairs/s · 12 s left · loss 0.31'; `rate` 0: not known yet."""
    parts = [f"{si(done)} {unit}"]
    if total:
        parts.insert(0, f"{100 * done // total} %")
    if rate > 0:
        parts.append(f"{si(rate)} {unit}/s")
        if total:
            parts.append(f"{duration((total - done) / rate)} left")
    parts += [f"{name} {value:.4g}" for name, value in facts.items()]
    return " · ".join(parts)


def si(value: float) -> str:
    """A number in three digits: 999, 12.3 k, 4.56 M, 7.89 G, 1.23 T."""
    for scale, letter in ((1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k")):
        if abs(value) >= scale * 0.9995:
            return f"{value / scale:.3g}{letter}"
    return f"{value:.3g}"


def duration(seconds: float) -> str:
    """Seconds as '0.4 s', '12 s', '3 min 05 s' or '2 h 07 min'."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    if seconds < 59.5:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02} s"
    return f"{minutes // 60} h {minutes % 60:02} min"


def cut(text: str, width: int) -> str:
    """One line of at most `width` columns, newlines and the like as their escapes."""
    shown = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
    fits = cell_len(shown) <= width
    return shown.rstrip() if fits else set_cell_size(shown, width - 1).rstrip() + "…"


def summary(artifact: Artifact) -> str:
    """One line on what a stage made; with its time it fits 80 columns."""
    contract = CONTRACTS.get(artifact.stage)
    return contract.status(artifact.counters, _n) if contract else ""


def _n(count: int) -> str:
    """A count in full below ten million, in three digits above."""
    return f"{count:,}" if count < 10_000_000 else si(count)
