"""Training by gradients of a loss, in steps over batches of examples."""

from __future__ import annotations

from dataclasses import dataclass

from embedmill.pipeline.config import TrainConfig
from embedmill.pipeline.train.closed_form.event_matrix import EVENT_BYTES, TILE_ROWS
from embedmill.pipeline.train.data.epoch_order import order_bytes
from embedmill.pipeline.train.data.train_events import MOST_KEPT_BYTES
from embedmill.pipeline.train.implicit_part import UPDATES, ImplicitParts, implicit_widths
from embedmill.pipeline.train.losses import Loss
from embedmill.pipeline.train.model import Model
from embedmill.pipeline.train.objectives.training_method import (
    FLOAT_BYTES,
    LOSS_BYTES,
    Calibration,
    NegativeCounts,
)
from embedmill.pipeline.train.plan import Plan, StepPlan, TrainingSize
from embedmill.pipeline.train.runtime import Runtime
from embedmill.pipeline.train.step import GradientStepper, Stepper
from embedmill.pipeline.train.tables.optimizers import OPTIMIZERS, SCHEDULES
from embedmill.pipeline.train.thresholds import threshold_bytes, threshold_widths
from embedmill.pipeline.train.training_data import TrainingData

__all__ = ["GradientDescent"]

_INDEX = 8  # bytes of a row number
_EVENT = 12  # bytes of two rows and a weight
_ROW_COPIES = 8  # of a step's rows: as sent and as received, gradients, changes
_LOG_LINES = 1000  # of steps, about
_MIN_LOG_STEPS = 10  # in a line
_WARM_UP = 2  # steps


@dataclass(frozen=True)
class GradientDescent:
    """Steps against the gradient of `loss`; with `negatives`, it compares events with negatives."""

    loss: Loss
    negatives: bool = True

    def plan(self, sizes: tuple[int, ...], config: TrainConfig) -> Plan:
        """See `TrainingMethod`."""
        return StepPlan(sizes, config.batch_size)

    def stepper(self, model: Model, data: TrainingData, runtime: Runtime) -> Stepper:
        """See `TrainingMethod`."""
        implicit = None
        if runtime.config.implicit_rate:
            with runtime.group.timer("wait"):
                tables = model.users, model.items
                implicit = ImplicitParts.of(tables, data, runtime.config.dim)
        return GradientStepper(self.loss, model, data, runtime, implicit)

    def negative_counts(self, config: TrainConfig, examples: int) -> NegativeCounts:
        """See `TrainingMethod`."""
        if not self.negatives:
            return NegativeCounts(0, 0)
        from_batch = (config.in_batch_negatives or examples) if config.in_batch else 0
        return NegativeCounts(config.negatives, from_batch)

    def state_widths(self, config: TrainConfig, columns: tuple[slice, ...]) -> dict[str, int]:
        """See `TrainingMethod`."""
        widths = OPTIMIZERS[config.optimizer].state(columns[-1].stop, columns)
        if config.top_k:
            widths |= threshold_widths()
        return widths | (implicit_widths(config.dim) if config.implicit_rate else {})

    def learning_rate(self, config: TrainConfig, step: int, steps: int) -> float:
        """See `TrainingMethod`."""
        warm_up = config.warmup_steps
        if step < warm_up:
            return config.learning_rate * (step + 1) / warm_up
        progress = (step - warm_up) / max(1, steps - warm_up)
        return config.learning_rate * SCHEDULES[config.schedule](progress)

    def initial_scale(self, dim: int) -> float:
        """See `TrainingMethod`."""
        scale: float = dim**-0.5
        return scale

    def divergence_advice(self, config: TrainConfig) -> str:
        """See `TrainingMethod`."""
        advice = f"Lower train.learning_rate (it is {config.learning_rate:g})"
        if config.keys.reads("temperature"):
            key = config.keys.path("temperature")
            advice += f" or raise {key} (it is {config.temperature:g})"
        return advice

    def log_interval(self, steps: int) -> int:
        """See `TrainingMethod`."""
        return max(_MIN_LOG_STEPS, -(-steps // _LOG_LINES))

    def calibration(self, plan: Plan) -> Calibration:
        """See `TrainingMethod`."""
        return Calibration(_WARM_UP, 2)

    def event_bytes(self, size: TrainingSize, config: TrainConfig, share: float) -> int:
        """See `TrainingMethod`."""
        per_item = 3 * _INDEX * size.items  # counts, and what negatives are drawn by
        if config.l2_power != 1:  # factors of the L2
            per_item += FLOAT_BYTES * (size.items + int(share * size.users))
        ordered = size.train + (size.valid if config.refit else 0)
        read = size.train + size.valid
        matrix = size.train * EVENT_BYTES if config.implicit_rate else 0
        kept = 0 if 8 * read * share > MOST_KEPT_BYTES else read * _EVENT
        return int(share * (kept + matrix)) + order_bytes(ordered, share) + per_item

    def step_bytes(
        self, size: TrainingSize, config: TrainConfig, workers: int, row_bytes: int
    ) -> int:
        """See `TrainingMethod`."""
        batch = -(-config.batch_size // workers)
        rows = min(batch, size.users) + self._distinct_items(size, config, workers)
        indices = 16 * _INDEX * (batch + self._candidates(config))
        if config.implicit_rate:  # gradients and changes of all factors, the items of a tile
            rows += (size.users + size.items) // (2 * workers) + min(size.items, TILE_ROWS) // 4
        step = _ROW_COPIES * rows * row_bytes + indices + LOSS_BYTES
        return max(step, threshold_bytes(size, config.top_k, row_bytes)) if config.top_k else step

    def sent_bytes(
        self, size: TrainingSize, config: TrainConfig, workers: int, row_bytes: int
    ) -> int:
        """Row numbers, vectors, their gradients, and negatives from the batch."""
        if workers == 1:
            return 0
        rows = self._distinct_items(size, config, workers) * (workers - 1) / workers
        if config.implicit_rate:  # an update fetches all items twice and sums over them twice
            steps = max(1, self.plan((size.train,), config).steps // UPDATES)
            rows += 2 * size.items * (workers - 1) / workers / steps
        in_batch = -(-_batch_negatives(config) // workers) * _INDEX * (workers - 1)
        return int(rows * (_INDEX + 2 * row_bytes)) + in_batch

    def _candidates(self, config: TrainConfig) -> int:
        return config.negatives + _batch_negatives(config) if self.negatives else 0

    def _distinct_items(self, size: TrainingSize, config: TrainConfig, workers: int) -> int:
        """Items that one worker looks up in a step, at most."""
        events = -(-config.batch_size // workers)
        return min(events + self._candidates(config), size.items)


def _batch_negatives(config: TrainConfig) -> int:
    return (config.in_batch_negatives or config.batch_size) if config.in_batch else 0
