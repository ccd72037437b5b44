"""Training with sharded tables: plain torch and torch.distributed."""

from __future__ import annotations

from embedmill.pipeline.train.assembly import WorkerTask
from embedmill.pipeline.train.checkpoints.adopt import adopt_checkpoints, discard_checkpoints
from embedmill.pipeline.train.collectives import Group, StoppedError
from embedmill.pipeline.train.logs.trackers import with_trackers
from embedmill.pipeline.train.loop import TrainingResult, train_worker
from embedmill.pipeline.train.resources.available import launcher_of
from embedmill.pipeline.train.resources.out_of_memory import out_of_memory
from embedmill.pipeline.train.short_training import train_if_short
from embedmill.pipeline.train.stage import build, check, check_settings, commit
from embedmill.pipeline.train.start import sources
from embedmill.pipeline.train.trials import Tuned, candidate_of, tune_settings
from embedmill.pipeline.train.worker_processes import train_in_processes, workers_failed

__all__ = [
    "Group",
    "StoppedError",
    "TrainingResult",
    "Tuned",
    "WorkerTask",
    "adopt_checkpoints",
    "build",
    "candidate_of",
    "check",
    "check_settings",
    "commit",
    "discard_checkpoints",
    "launcher_of",
    "out_of_memory",
    "sources",
    "train_if_short",
    "train_in_processes",
    "train_worker",
    "tune_settings",
    "with_trackers",
    "workers_failed",
]
