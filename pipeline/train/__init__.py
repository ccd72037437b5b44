"""Training with sharded tables: plain torch and torch.distributed."""

from __future__ import annotations

from embedmill.pipeline.train.collectives import Group, StoppedError
from embedmill.pipeline.train.logs.trackers import tracked
from embedmill.pipeline.train.loop import Outcome, work
from embedmill.pipeline.train.resources.out_of_memory import out_of_memory
from embedmill.pipeline.train.stage import build, check, check_settings, commit, discard_checkpoints
from embedmill.pipeline.train.trainer import Task

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
