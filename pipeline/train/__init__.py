"""Training with sharded tables: plain torch and torch.distributed."""

from __future__ import annotations

from pipeline.train.collectives import Group, StoppedError
from pipeline.train.exhausted import out_of_memory
from pipeline.train.loop import Outcome, work
from pipeline.train.stage import build, check, check_settings, commit, discard_checkpoints
from pipeline.train.trackers import tracked
from pipeline.train.trainer import Task

__all__ = [
    "Group",
    "Outcome",
    "StoppedError",
    "Task",
    "build",
    "check",
    "check_settings",
    "commit",
    "discard_checkpoints",
    "out_of_memory",
    "tracked",
    "work",
]
