"""Progress of a run: a line that is redrawn on a terminal, lines of a log elsewhere.

With `--log json` each line is an event (`pipeline.log.log_event`).
"""

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

from embedmill.pipeline.log import log_event, logs_json
from embedmill.pipeline.store.artifact import Artifact
from embedmill.schemas.registry import CONTRACTS

__all__ = ["Terminal", "duration", "si", "summary", "truncate"]

_REDRAW_SECONDS = 0.1  # between redraws on a terminal
_LOG_SECONDS = 10.0  # between lines of a log


class Terminal:
    """Shows the progress of stages.

    Where `file` (standard output by default) is a terminal, a stage has one line that is redrawn;
    elsewhere it gets a line from time to time. A `quiet` one shows nothing.
    """

    def __init__(self, file: TextIO | None = None, *, quiet: bool = False) -> None:
        self._file = file or sys.stdout
        self._quiet = quiet
        self._console = Console(file=self._file, highlight=False)

    @property
    def live(self) -> bool:
        """Whether a stage's line is redrawn in place."""
        return self._console.is_terminal and not self._quiet and not logs_json()

    def say(self, text: str) -> None:
        """Print one line."""
        self._say(text, None)

    def _say(self, text: str, stage: str | None) -> None:
        if self._quiet:
            return
        if logs_json():
            log_event("note", stage=stage, text=text.strip())
        else:
            self._console.print(Text(text), soft_wrap=not self.live)
            self._file.flush()

    @contextmanager
    def stage(self, name: str) -> Iterator[_StageProgress]:
        """Show a stage until the block ends; gives what the stage reports its progress to."""
        if logs_json():
            if not self._quiet:
                log_event("started", stage=name)
            try:
                yield _LoggedProgress(name, lambda text: self._say(text, name), quiet=self._quiet)
            except BaseException as error:  # why is said at the end of the command
                is_stopped = isinstance(error, KeyboardInterrupt)
                log_event("stopped" if is_stopped else "failed", stage=name)
                raise
            return
        if not self.live:
            self.say(f"{name:<9} started")
            yield _StageProgress(name, self.say, None)
            return
        with Live(console=self._console, auto_refresh=False, transient=True) as live:
            progress = _StageProgress(name, self.say, live)
            progress.draw("")
            yield progress

    def finished(self, name: str, artifact: Artifact) -> None:
        """Print what a stage made and how long it took."""
        if self._logged("built", name, artifact):
            return
        line = f"{name:<9} {summary(artifact)}"
        self.say(f"{line:<66} {duration(artifact.manifest.seconds):>12}")

    def skipped(self, name: str, artifact: Artifact) -> None:
        """Print what a stage had made that is up to date."""
        if self._logged("up to date", name, artifact):
            return
        line = f"{name:<9} {summary(artifact)}"
        self.say(f"{line:<66} {'up to date':>12}")

    def _logged(self, event: str, name: str, artifact: Artifact) -> bool:
        """Whether lines are events; then that of a finished stage has been written."""
        if logs_json() and not self._quiet:
            manifest = artifact.manifest
            log_event(
                event,
                stage=name,
                counters=artifact.counters,
                content=manifest.content,
                seconds=manifest.seconds,
            )
        return logs_json()


class _StageProgress:
    """The `embedmill.pipeline.log.Progress` of a stage, shown at intervals."""

    def __init__(self, name: str, say: Callable[[str], None], live: Live | None) -> None:
        self._name = name
        self._say = say
        self._live = live
        self._shown_at = time.perf_counter() if live is None else 0.0
        # What speed is measured from: unit, units done and time.
        self._start: tuple[str, int, float] | None = None
        self._done = 0

    def update(self, done: int, total: int | None, unit: str, **facts: float) -> None:
        now = time.perf_counter()
        # Units done by an earlier attempt, and the time to start, do not count for the speed.
        if self._start is None or self._start[0] != unit or done < self._done:
            self._start = (unit, done, now)
        self._done = done
        if now - self._shown_at < (_LOG_SECONDS if self._live is None else _REDRAW_SECONDS):
            return
        self._shown_at = now
        _, done_before, since = self._start
        rate = (done - done_before) / (now - since) if now > since else 0.0
        self.draw(progress_line(done, total, unit, rate, facts))

    def note(self, text: str) -> None:
        self._say(f"{'':<9} {text}")

    def record(self, line: dict[str, Any]) -> None:
        """Shows nothing: `update` has the same figures."""

    def draw(self, text: str) -> None:
        """Show the stage's current line."""
        line = f"{self._name:<9} {text}".rstrip()
        if self._live is None:
            self._say(line)
        else:
            self._live.update(Text(line, overflow="ellipsis", no_wrap=True), refresh=True)


class _LoggedProgress(_StageProgress):
    """The progress of a stage as events, at the intervals of a log."""

    def __init__(self, name: str, say: Callable[[str], None], *, quiet: bool) -> None:
        super().__init__(name, say, None)
        self._quiet = quiet

    def update(self, done: int, total: int | None, unit: str, **facts: float) -> None:
        now = time.perf_counter()
        if not self._quiet and now - self._shown_at >= _LOG_SECONDS:
            self._shown_at = now
            log_event(
                "progress", stage=self._name, done=done, total=total, unit=unit, figures=facts
            )

    def note(self, text: str) -> None:
        self._say(text)


def progress_line(
    done: int, total: int | None, unit: str, rate: float, facts: dict[str, float]
) -> str:
    """A line such as '45 % · 1.2 M pairs · 310 k pairs/s · 12 s left · loss 0.31'.

    Args:
        done: units done.
        total: units to do, where that is known.
        unit: what is counted: "pairs".
        rate: units per second; 0 where it is not known yet.
        facts: further figures by name.
    """
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


def truncate(text: str, width: int) -> str:
    """One line of at most `width` columns; characters that cannot be printed become escapes."""
    shown = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
    fits = cell_len(shown) <= width
    return shown.rstrip() if fits else set_cell_size(shown, width - 1).rstrip() + "…"


def summary(artifact: Artifact) -> str:
    """One line on what a stage made; with its time it fits 80 columns."""
    contract = CONTRACTS.get(artifact.stage)
    try:
        return contract.status(artifact.counters, _n) if contract else ""
    except LookupError as error:  # a manifest that another program wrote, or an older one
        return f"its manifest lacks the counter {error}"


def _n(count: int) -> str:
    """A count in full below ten million, in three digits above."""
    return f"{count:,}" if count < 10_000_000 else si(count)
