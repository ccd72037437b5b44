"""The log of a training: a line of JSON for a number of steps, and one for every epoch.

    {"kind": "start", "workers": 2, "niceness": 0}    training starts or resumes
    {"kind": "steps", "epoch": 1, "step": 40, ...}    steps up to the 40th of epoch 1
    {"kind": "epoch", "epoch": 1, "train_loss": ...}  an epoch has ended: its metrics
    {"kind": "end", ...}                              the tables are written

All but the first have the "seconds" since the previous line, and the phases in which they were
spent: "seconds.wait" (for data, and the start), ".lookup", ".exchange" (with other workers,
waiting for slower ones included), ".loss", ".update", ".checkpoint", ".validate" and ".other";
means over the workers, of which "max.wait" and so on are the maxima. Every step is in one line:
steps that are repeated after a kill replace those that were lost. "at" counts steps since the
training started; those of a refit follow those that sought the best epoch.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import torch

from embedmill.pipeline.log import Progress
from embedmill.pipeline.store.storage import Storage
from embedmill.pipeline.store.stored_json import UNREADABLE
from embedmill.pipeline.train.checkpoints.checkpoint import Cursor
from embedmill.pipeline.train.collectives import Group
from embedmill.pipeline.train.logs.phase_timer import PHASES
from embedmill.pipeline.train.trainer import Trainer
from embedmill.schemas.train import LOG

__all__ = ["StepLog"]

_SPENT_IN = (*PHASES, "other")
_SAVE_INTERVAL = 10.0  # seconds


@dataclass
class StepLog:
    """The log, seen from one worker. Every worker makes the same calls; rank 0 has the lines."""

    storage: Storage
    group: Group
    progress: Progress
    lines: list[dict[str, Any]] = field(default_factory=list)
    _at: int = 0
    _loss: float = 0.0  # of the steps that no line has yet, times their sizes
    _pairs: int = 0
    _steps: int = 0
    _saved: float = field(default_factory=time.monotonic)

    def start(self, resumed: Cursor | None) -> None:
        """Start the log; or resume it at a cursor, dropping the lines of later steps."""
        if self.group.rank != 0:
            return
        if resumed is not None:
            end = _cursor_position(resumed)
            self.lines = [line for line in _read(self.storage) if _position(line) <= end]
            self._at = self.lines[-1]["at"] if self.lines else 0
        # A low priority explains a slow training; that of a joined cluster is not ours to set.
        figures = {
            "workers": self.group.world,
            "niceness": os.getpriority(os.PRIO_PROCESS, 0),
        }
        self._append("start", resumed or Cursor(), figures)

    def add_step(self, loss: float, pairs: int) -> None:
        """Add a step to the next line.

        Args:
            loss: mean over the global batch.
            pairs: examples of the global batch.
        """
        self._loss += loss * pairs
        self._pairs += pairs
        self._steps += 1

    def write_steps(self, trainer: Trainer) -> None:
        """Write a line for the steps that no line has yet, if any; a collective."""
        if not self._steps:
            return
        figures = {
            "steps": self._steps,
            "pairs": self._pairs,
            "train_loss": self._loss / max(1, self._pairs),  # a step may have no examples
            "learning_rate": trainer.learning_rate(trainer.cursor.step - 1),
        }
        self._loss, self._pairs, self._steps = 0.0, 0, 0
        spent = self._spent_seconds()
        spent["pairs_per_second"] = round(figures["pairs"] / max(spent["seconds"], 1e-9), 1)
        self._append("steps", trainer.cursor, {**figures, **spent})

    def epoch(self, cursor: Cursor) -> None:
        """Write a line for the epoch that has ended; a collective."""
        entry = {"train_loss": cursor.refit[-1]} if cursor.refit else cursor.history[-1]
        self._append("epoch", cursor, {**entry, **self._spent_seconds()})

    def end(self, cursor: Cursor) -> None:
        """Write the last line, and the file; a collective."""
        self._append("end", cursor, self._spent_seconds())
        with self.group.fail_together():
            self.save()

    def save(self) -> None:
        """Replace the file by all lines so far."""
        if self.group.rank == 0:
            text = "".join(json.dumps(line) + "\n" for line in self.lines)
            self.storage.write(LOG, text.encode())
            self._saved = time.monotonic()

    def _append(self, kind: str, cursor: Cursor, figures: dict[str, Any]) -> None:
        if self.group.rank != 0:
            return
        position = {"epoch": cursor.epoch + (kind == "steps"), "step": cursor.step}
        if cursor.refit is not None:
            position["refit"] = 1
        now = datetime.now(UTC).isoformat(timespec="seconds")
        at = self._at + figures.get("steps", 0)
        self.lines.append({"kind": kind, "time": now, **position, "at": at, **figures})
        self._at = at
        self.progress.record(self.lines[-1])
        if time.monotonic() - self._saved > _SAVE_INTERVAL:
            self.save()

    def _spent_seconds(self) -> dict[str, float]:
        """Seconds since the last line, in all and by phase: means and maxima over the workers."""
        total, by_phase = self.group.timer.lap()
        own = [total, *(by_phase[name] for name in PHASES), total - sum(by_phase.values())]
        row = torch.tensor([own], dtype=torch.float64, device=self.group.device)
        every = self.group.all_gather(row, [1] * self.group.world).cpu()
        mean_total, *means = every.mean(0).tolist()
        spent = {"seconds": mean_total}
        spent |= {f"seconds.{n}": s for n, s in zip(_SPENT_IN, means, strict=True)}
        if self.group.world > 1:
            maxima = every.max(0).values.tolist()[1:]
            spent |= {f"max.{n}": s for n, s in zip(_SPENT_IN, maxima, strict=True)}
        return {name: round(seconds, 6) for name, seconds in spent.items()}


def _cursor_position(cursor: Cursor) -> tuple[int, int, int]:
    return int(cursor.refit is not None), cursor.epoch, cursor.step


def _position(line: dict[str, Any]) -> tuple[int, int, int]:
    """The position of a line, to be compared with that of a cursor."""
    epoch = line["epoch"] - (line["kind"] == "steps")
    return line.get("refit", 0), epoch, line["step"]


def _read(storage: Storage) -> list[dict[str, Any]]:
    """The lines of an earlier attempt; none where the file is damaged, as no result needs it."""
    try:
        lines = [json.loads(line) for line in storage.read(LOG).splitlines()]
        return [line for line in lines if _position(line) and line["at"] >= 0]
    except (FileNotFoundError, *UNREADABLE):
        return []
