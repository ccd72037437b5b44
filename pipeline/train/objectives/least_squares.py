"""Training by implicit alternating least squares: an epoch is a sweep over users and items."""

from __future__ import annotations

from embedmill.pipeline.config import TrainConfig
from embedmill.pipeline.train.als import SweepPlan, prepare_sweep
from embedmill.pipeline.train.model import Model
from embedmill.pipeline.train.objectives.training_method import (
    LOSS_BYTES,
    SolvingMethod,
)
from embedmill.pipeline.train.plan import Plan, TrainingSize
from embedmill.pipeline.train.runtime import Runtime
from embedmill.pipeline.train.step import Stepper
from embedmill.pipeline.train.training_data import TrainingData

__all__ = ["AlternatingLeastSquares"]

_EVENT = 120  # bytes: events are sorted by user and by item, and both orders are kept
_ROW_COPIES = 4  # of a step's rows


class AlternatingLeastSquares(SolvingMethod):
    """Rows of one side are solved for while the other side is fixed (`train.als`)."""

    def plan(self, sizes: tuple[int, ...], config: TrainConfig) -> Plan:
        """See `TrainingMethod`."""
        return SweepPlan(sizes, config.dim)

    def stepper(self, model: Model, data: TrainingData, runtime: Runtime) -> Stepper:
        """See `TrainingMethod`."""
        plan = data.plan
        assert isinstance(plan, SweepPlan)
        with runtime.group.timer("wait"):
            return prepare_sweep(
                model.users.embedding,
                model.items.embedding,
                data.events,
                data.sample_weights.of(data.events.weight_E),
                runtime.config.ials,
                plan,
            )

    def initial_scale(self, dim: int) -> float:
        """Near zero, as in Rendle et al. 2021, arXiv 2110.14037, section 4."""
        scale: float = 0.1 * dim**-0.5
        return scale

    def divergence_advice(self, config: TrainConfig) -> str:
        """See `TrainingMethod`."""
        return f"Raise train.ials.regularization (it is {config.ials.regularization:g})"

    def event_bytes(self, size: TrainingSize, config: TrainConfig, share: float) -> int:
        """See `TrainingMethod`."""
        return int(share * size.train * _EVENT)

    def step_bytes(
        self, size: TrainingSize, config: TrainConfig, workers: int, row_bytes: int
    ) -> int:
        """See `TrainingMethod`."""
        fetched = min(max(size.users, size.items) * row_bytes, 1 << 30)
        return _ROW_COPIES * fetched + LOSS_BYTES

    def sent_bytes(
        self, size: TrainingSize, config: TrainConfig, workers: int, row_bytes: int
    ) -> int:
        """0: not estimated."""
        return 0
