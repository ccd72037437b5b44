"""The log of a training: a line of JSON for every so many steps, and one for every epoch.

    {"kind": "start", "workers": 2, ...}              training begins, or goes on
    {"kind": "steps", "epoch": 1, "step": 40, ...}    steps up to the 40th of epoch 1
    {"kind": "epoch", "epoch": 1, "train_loss": ...}  an epoch has ended: its metrics
    {"kind": "end", ...}                              the tables are written

All but the first carry the "seconds" since the line before them, and how they were spent:
"seconds.wait" (for data), ".lookup", ".exchange" (with other workers, slower ones waited for),
".loss", ".update", ".checkpoint", ".validate" and ".other"; means over the workers, of which
"max.wait", ... are the greatest. Every step is in one line: what was done again after a kill
replaces what was lost. "at" counts steps since the training began, epochs of a refit after
those that sought the best one.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import torch

from embedmill.pipeline.log import Progress
from embedmill.pipeline.store.storage import Storage
from embedmill.pipeline.train.collectives import Group
from embedmill.pipeline.train.logs.phase_timer import PHASES
from embedmill.pipeline.train.tables.checkpoint import Cursor
from embedmill.pipeline.train.trainer import Trainer

__all__ = ["FILE", "StepLog"]

FILE = "log.jsonl"
_SPENT = (*PHASES, "other")
_LINES = 1000  # of steps, about, where the config leaves it open
_LEAST = 10  # steps in a line
_SAVE_EVERY = 10.0  # seconds


@dataclass
class StepLog:
    """The log seen from one worker. Every worker calls it alike; rank 0 has the lines."""

    storage: Storage
    group: Group
    progress: Progress
    lines: list[dict[str, Any]] = field(default_factory=list)
    _at: int = 0
    _loss: float = 0.0
    _pairs: int = 0
    _steps: int = 0
    _saved: float = field(default_factory=time.monotonic)

    def start(self, found: Cursor | None) -> None:
        """Begin, or go on after `found`: lines of steps that came after it are dropped."""
        if self.group.rank != 0:
            return
        if found is not None:
            self.lines = [line for line in _read(self.storage) if _place(line) <= _done(found)]
            self._at = self.lines[-1]["at"] if self.lines else 0
        self._append("start", found or Cursor(), {"workers": self.group.world})

    def step(self, trainer: Trainer, loss: float, pairs: int) -> bool:
        """Take in the step before the cursor, and write a line where one is due.

        Args:
            trainer: the training; its cursor is behind the step.
            loss: mean over the global batch.
            pairs: events of the global batch.

        Returns:
            whether a line was due, the same at all workers.
        """
        self._loss += loss * pairs
        self._pairs += pairs
        self._steps += 1
        done = trainer.cursor.step
        due = done % self.every(trainer) == 0 or done == trainer.plan.steps
        if due:
            self.close(trainer)
        return due

    def every(self, trainer: Trainer) -> int:
        """Steps in a line; those of a sweep are long."""
        if trainer.sweep is not None:
            return trainer.config.log_steps or 1
        steps = trainer.config.epochs * trainer.plan.steps
        return trainer.config.log_steps or max(_LEAST, -(-steps // _LINES))

    def close(self, trainer: Trainer) -> None:
        """End the line of steps that is open, if one is; a collective."""
        if not self._steps:
            return
        figures = {
            "steps": self._steps,
            "pairs": self._pairs,
            "train_loss": self._loss / max(1, self._pairs),  # a step may have none
            "learning_rate": trainer.rate(trainer.cursor.step - 1),
        }
        self._loss, self._pairs, self._steps = 0.0, 0, 0
        spent = self._spent()
        spent["pairs_per_second"] = round(figures["pairs"] / max(spent["seconds"], 1e-9), 1)
        self._append("steps", trainer.cursor, {**figures, **spent})

    def epoch(self, cursor: Cursor) -> None:
        """A line for the epoch that ended before the cursor; a collective."""
        entry = {"train_loss": cursor.refit[-1]} if cursor.refit else cursor.history[-1]
        self._append("epoch", cursor, {**entry, **self._spent()})

    def end(self, cursor: Cursor) -> None:
        """The last line, and the file as it stays; a collective."""
        self._append("end", cursor, self._spent())
        with self.group.agreed():
            self.save()

    def save(self) -> None:
        """Write the file anew, whole."""
        if self.group.rank == 0:
            text = "".join(json.dumps(line) + "\n" for line in self.lines)
            self.storage.write(FILE, text.encode())
            self._saved = time.monotonic()

    def _append(self, kind: str, cursor: Cursor, figures: dict[str, Any]) -> None:
        if self.group.rank != 0:
            return
        place = {"epoch": cursor.epoch + (kind == "steps"), "step": cursor.step}
        if cursor.refit is not None:
            place["refit"] = 1
        now = datetime.now(UTC).isoformat(timespec="seconds")
        at = self._at + figures.get("steps", 0)
        self.lines.append({"kind": kind, "time": now, **place, "at": at, **figures})
        self._at = at
        self.progress.record(self.lines[-1])
        if time.monotonic() - self._saved > _SAVE_EVERY:
            self.save()

    def _spent(self) -> dict[str, float]:
        """Seconds since the last line and by phase, means and maxima over the workers."""
        whole, parts = self.group.clock.lap()
        own = [whole, *(parts[name] for name in PHASES), whole - sum(parts.values())]
        mine = torch.tensor([own], dtype=torch.float64, device=self.group.device)
        every = self.group.gather(mine, [1] * self.group.world).cpu()
        whole_mean, *means = every.mean(0).tolist()
        spent = {"seconds": whole_mean}
        spent |= {f"seconds.{n}": s for n, s in zip(_SPENT, means, strict=True)}
        if self.group.world > 1:
            greatest = every.max(0).values.tolist()[1:]
            spent |= {f"max.{n}": s for n, s in zip(_SPENT, greatest, strict=True)}
        return {name: round(seconds, 6) for name, seconds in spent.items()}


def _done(cursor: Cursor) -> tuple[int, int, int]:
    return int(cursor.refit is not None), cursor.epoch, cursor.step


def _place(line: dict[str, Any]) -> tuple[int, int, int]:
    """Where a line stands, to be compared with a cursor."""
    epoch = line["epoch"] - (line["kind"] == "steps")
    return line.get("refit", 0), epoch, line["step"]


def _read(storage: Storage) -> list[dict[str, Any]]:
    """The lines of an earlier attempt; none where they cannot be read: a log is no result."""
    try:
        found = [json.loads(line) for line in storage.read(FILE).splitlines()]
        return [line for line in found if _place(line) and line["at"] >= 0]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return []
