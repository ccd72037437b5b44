"""The state of a training in one worker's memory, and how far it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from embedmill.pipeline.config import TrainConfig
from embedmill.pipeline.errors import NotFiniteError
from embedmill.pipeline.train.checkpoints.checkpoint import Cursor
from embedmill.pipeline.train.collectives import Group
from embedmill.pipeline.train.model import Model
from embedmill.pipeline.train.objectives import Objective
from embedmill.pipeline.train.plan import Plan
from embedmill.pipeline.train.runtime import Runtime
from embedmill.pipeline.train.step import Stepper
from embedmill.pipeline.train.training_data import TrainingData

__all__ = ["Trainer"]


@dataclass
class Trainer:
    """A training at `cursor`, the only field that is replaced as training goes on."""

    objective: Objective
    runtime: Runtime
    data: TrainingData
    model: Model
    stepper: Stepper
    cursor: Cursor

    @property
    def config(self) -> TrainConfig:
        """Section train."""
        return self.runtime.config

    @property
    def group(self) -> Group:
        """The workers that train together."""
        return self.runtime.group

    @property
    def plan(self) -> Plan:
        """The steps of an epoch."""
        return self.data.plan

    @property
    def metric(self) -> str:
        """The metric that chooses the best epoch."""
        return self.config.metric or self.config.keys.metrics[0]

    @property
    def epochs(self) -> int:
        """Epochs of this phase, unless it stops early: all, or in a refit up to the best one."""
        return self.cursor.best_epoch if self.cursor.refit is not None else self.config.epochs

    def finished(self) -> bool:
        """Whether all epochs are done, or `patience` of them without improvement."""
        cursor, patience = self.cursor, self.config.patience
        unimproved = cursor.epoch - cursor.best_epoch
        validates = self.data.validation.users > 0
        early = bool(patience and validates and cursor.best_epoch and unimproved >= patience)
        return cursor.step == 0 and (cursor.epoch >= self.epochs or early)

    def learning_rate(self, step: int) -> float:
        """The learning rate of a step of the current epoch."""
        steps = self.plan.steps
        return self.objective.method.learning_rate(
            self.config, self.cursor.epoch * steps + step, self.epochs * steps
        )

    def start_epoch(self) -> Callable[[int], float]:
        """What takes a step of the current epoch; see `Stepper.start_epoch`."""
        return self.stepper.start_epoch(self.cursor.epoch, self.learning_rate)

    @property
    def log_interval(self) -> int:
        """Steps in a line of the log."""
        steps = self.config.epochs * self.plan.steps
        return self.config.log_steps or self.objective.method.log_interval(steps)

    def diverged(self, where: str) -> NotFiniteError:
        """The error for a value that is not finite; `where` names the step or what followed."""
        return NotFiniteError(
            f"the loss or a gradient is not finite in epoch {self.cursor.epoch + 1}, {where}",
            where="train",
            todo=self.objective.method.divergence_advice(self.config),
        )
