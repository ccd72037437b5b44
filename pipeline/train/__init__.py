"""Training with sharded tables: plain torch and torch.distributed."""

from __future__ import annotations

from embedmill.pipeline.train.assembly import WorkerTask
from embedmill.pipeline.train.collectives import Group, StoppedError
from embedmill.pipeline.train.logs.trackers import with_trackers
from embedmill.pipeline.train.loop import TrainingResult, train_worker
from embedmill.pipeline.train.resources.out_of_memory import out_of_memory
from embedmill.pipeline.train.stage import build, check, check_settings, commit, discard_checkpoints

__all__ = [
    "Group",
    "StoppedError",
    "TrainingResult",
    "WorkerTask",
    "build",
    "check",
    "check_settings",
    "commit",
    "discard_checkpoints",
    "out_of_memory",
    "train_worker",
    "with_trackers",
]
