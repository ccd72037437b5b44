"""Settings that tests train with, and what training gave."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load

from embedmill.pipeline import train
from embedmill.pipeline.log import Quiet
from embedmill.pipeline.store.run import Run
from embedmill.pipeline.train import objectives
from tests.support.runs import planted

SOFTMAX = {
    "epochs": 4, "dim": 6, "batch_size": 50, "negatives": 8, "in_batch": True,
    "negatives_power": 0.5, "bias": True, "weight_power": 1.0, "schedule": "linear",
    "warmup_steps": 3, "refit": True, "patience": 3,
}  # fmt: skip
RATING = {
    "epochs": 3, "dim": 4, "batch_size": 64, "objective": "rating", "optimizer": "adam",
    "learning_rate": 0.01, "l2": 0.2, "l2_power": 0.5, "l2_bias": 0.01, "schedule": "cosine",
}  # fmt: skip
IALS = {
    "epochs": 4, "dim": 6, "objective": "ials", "weight_power": 1.0, "refit": True, "patience": 3,
    "ials": {"block_size": 4, "cg_steps": 2},
}  # fmt: skip
ITEM2VEC = {
    "epochs": 3, "dim": 6, "batch_size": 200, "objective": "item2vec", "negatives": 8,
    "refit": True, "patience": 2, "item2vec": {"history": 3},
}  # fmt: skip
SPECTRAL = {
    "epochs": 2, "dim": 6, "objective": "spectral", "weight_power": 1.0, "refit": True,
    "spectral": {"passes": 3},
}  # fmt: skip
OBJECTIVES = {
    "softmax": SOFTMAX, "rating": RATING, "ials": IALS, "item2vec": ITEM2VEC, "spectral": SPECTRAL,
}  # fmt: skip
# Every entry of the table must be the same for any number of workers.
EVERY: dict[str, dict[str, Any]] = {
    name: {"objective": name, "epochs": 2, "dim": 6, "batch_size": 50, "negatives": 8}
    for name in objectives.OBJECTIVES
} | OBJECTIVES

# Not written in the background, a checkpoint counts before the next step.
AT_ONCE = {"checkpoint_copy_mib": 0}


class KilledError(Exception):
    pass


class KillAt(Quiet):
    """Ends the process, or raises, at the n-th step it hears of."""

    def __init__(self, step: int, *, hard: bool = False) -> None:
        self.left = step
        self.hard = hard

    def update(self, done: int, total: int | None, unit: str, **facts: float) -> None:
        self.left -= 1
        if self.left == 0:
            if self.hard:
                os._exit(9)
            raise KilledError


class Notes(Quiet):
    def __init__(self) -> None:
        self.texts: list[str] = []

    def note(self, text: str) -> None:
        self.texts.append(text)


def tables(run: Run) -> dict[str, torch.Tensor]:
    """Both tables in order of row, biases as the last column."""
    whole = {}
    storage = run.storage.at("train")
    counts = run.manifest("vocab").counters  # type: ignore[union-attr]
    partitions = run.config.run.partitions
    for name in ("users", "items"):
        rows: list[torch.Tensor] = [torch.empty(0)] * counts[name]
        for p in range(partitions):
            part = load(storage.read(f"{name}/part-{p:05d}.safetensors"))
            columns = [part["weight"], *([part["bias"][:, None]] if "bias" in part else [])]
            for slot, row in enumerate(torch.cat(columns, 1)):
                rows[p + slot * partitions] = row
        whole[name] = torch.stack(rows)
    return whole


def train_rank(run: Run, kill_at: int, hard: bool = False) -> train.TrainingResult:
    """One rank's work; with `kill_at`, rank 0 stops at that step."""
    group = train.Group.current()
    progress = KillAt(kill_at, hard=hard) if kill_at and group.rank == 0 else Quiet()
    return train.train_worker(train.WorkerTask.of(run, run.writer("train")), group, progress)


def run_of(folder: Path, objective: str, **changes: Any) -> Run:
    shards = {"pairs": {"with_valid": True}} if objective.startswith("item2vec") else {}
    return planted(folder, train={**EVERY[objective], **changes}, shards=shards)
