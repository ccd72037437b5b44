"""What an objective needs of a method of training: its plan, its steps, and what they cost."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from embedmill.pipeline.config import TrainConfig
from embedmill.pipeline.train.model import Model
from embedmill.pipeline.train.plan import Plan, TrainingSize
from embedmill.pipeline.train.runtime import Runtime
from embedmill.pipeline.train.step import Stepper
from embedmill.pipeline.train.training_data import TrainingData

__all__ = [
    "FLOAT_BYTES",
    "LOSS_BYTES",
    "Calibration",
    "NegativeCounts",
    "SolvingMethod",
    "TrainingMethod",
]

FLOAT_BYTES = 4
LOSS_BYTES = 32 << 20  # blocks that a step works on


class NegativeCounts(NamedTuple):
    """Negatives of a step: `sampled` items, and the items of `from_batch` events of the batch."""

    sampled: int
    from_batch: int


class Calibration(NamedTuple):
    """How a step is timed: `warm_up` steps are not timed, at least `timed` steps are."""

    warm_up: int
    timed: int


class TrainingMethod(Protocol):
    """How the rows of the tables are found. Byte counts are upper bounds for one worker."""

    def plan(self, sizes: tuple[int, ...], config: TrainConfig) -> Plan:
        """The steps of an epoch over `sizes` examples by partition."""

    def stepper(self, model: Model, data: TrainingData, runtime: Runtime) -> Stepper:
        """What takes the steps; a collective."""

    def negative_counts(self, config: TrainConfig, examples: int) -> NegativeCounts:
        """Negatives of a step, in a training on `examples` of an epoch."""

    def state_widths(self, config: TrainConfig, columns: tuple[slice, ...]) -> dict[str, int]:
        """Width of each tensor of optimizer state; `columns` are those of a table."""

    def learning_rate(self, config: TrainConfig, step: int, steps: int) -> float:
        """Learning rate of a step.

        Args:
            config: section train.
            step: counted over all epochs of the search, or of the refit.
            steps: how many these have.

        Returns:
            the rate; 0 of a method that has none.
        """

    def initial_scale(self, dim: int) -> float:
        """Standard deviation of initial values where the config has none."""

    def divergence_advice(self, config: TrainConfig) -> str:
        """What to change where a value is not finite."""

    def log_interval(self, steps: int) -> int:
        """Steps in a line of the log of a training of `steps`, where the config has no number."""

    def calibration(self, plan: Plan) -> Calibration:
        """How to time steps of a plan."""

    def event_bytes(self, size: TrainingSize, config: TrainConfig, share: float) -> int:
        """Memory of the examples of a worker that owns `share` of the partitions."""

    def step_bytes(
        self, size: TrainingSize, config: TrainConfig, workers: int, row_bytes: int
    ) -> int:
        """Memory of a step, beside the tables.

        Args:
            size: rows and examples of the training.
            config: section train.
            workers: how many train.
            row_bytes: of a row of a table.
        """

    def sent_bytes(
        self, size: TrainingSize, config: TrainConfig, workers: int, row_bytes: int
    ) -> int:
        """Bytes that a worker sends to the others in a step.

        Args:
            size: rows and examples of the training.
            config: section train.
            workers: how many train.
            row_bytes: of a row of a table.
        """


class SolvingMethod:
    """The parts of a `TrainingMethod` that takes few and long steps without gradients."""

    def negative_counts(self, config: TrainConfig, examples: int) -> NegativeCounts:
        """See `TrainingMethod`: none."""
        return NegativeCounts(0, 0)

    def state_widths(self, config: TrainConfig, columns: tuple[slice, ...]) -> dict[str, int]:
        """See `TrainingMethod`: there is no optimizer."""
        return {}

    def learning_rate(self, config: TrainConfig, step: int, steps: int) -> float:
        """See `TrainingMethod`: none."""
        return 0.0

    def log_interval(self, steps: int) -> int:
        """A line for each step: they are long."""
        return 1

    def calibration(self, plan: Plan) -> Calibration:
        """A whole epoch, as its steps differ."""
        return Calibration(0, plan.steps)
