"""Vectors in closed form: an epoch is some passes over the events."""

from __future__ import annotations

from dataclasses import replace

from embedmill.pipeline.config import TrainConfig
from embedmill.pipeline.train.closed_form import PassPlan, SubspaceIteration
from embedmill.pipeline.train.closed_form.event_matrix import EVENT_BYTES, TILE_ROWS
from embedmill.pipeline.train.graph.event_graph import EventGraph
from embedmill.pipeline.train.model import Model
from embedmill.pipeline.train.objectives.training_method import (
    FLOAT_BYTES,
    LOSS_BYTES,
    SolvingMethod,
)
from embedmill.pipeline.train.plan import Plan, TrainingSize
from embedmill.pipeline.train.runtime import Runtime
from embedmill.pipeline.train.step import Stepper
from embedmill.pipeline.train.training_data import TrainingData

__all__ = ["SpectralMethod"]

_SQUARES = 6  # matrices of D x D numbers of 8 bytes, at once


class SpectralMethod(SolvingMethod):
    """Singular vectors by subspace iteration (`train.closed_form.subspace`)."""

    def plan(self, sizes: tuple[int, ...], config: TrainConfig) -> Plan:
        """See `TrainingMethod`."""
        return PassPlan(sizes, config.spectral.passes)

    def stepper(self, model: Model, data: TrainingData, runtime: Runtime) -> Stepper:
        """See `TrainingMethod`."""
        users, items = model.users.embedding, model.items.embedding
        with runtime.group.timer("wait"):
            graph = EventGraph.of(
                data.events, data.sample_weights, users, items, runtime.config.dim
            )
        new = replace(graph, events=data.new) if runtime.started and data.new is not None else None
        return SubspaceIteration(graph, runtime.config.spectral, runtime.started, new)

    def initial_scale(self, dim: int) -> float:
        """See `TrainingMethod`; the first pass makes the columns orthonormal."""
        scale: float = dim**-0.5
        return scale

    def divergence_advice(self, config: TrainConfig) -> str:
        """See `TrainingMethod`."""
        return f"Lower train.weight_power (it is {config.weight_power:g})"

    def event_bytes(self, size: TrainingSize, config: TrainConfig, share: float) -> int:
        """See `TrainingMethod`."""
        degrees = 2 * FLOAT_BYTES * (size.items + int(share * size.users))
        return int(share * size.train * EVENT_BYTES) + degrees

    def step_bytes(
        self, size: TrainingSize, config: TrainConfig, workers: int, row_bytes: int
    ) -> int:
        """Rows of the items of a tile as fetched, those of its users or items as summed."""
        rows = 2 * min(size.items, TILE_ROWS) + min(-(-size.users // workers), TILE_ROWS)
        return rows * row_bytes + _SQUARES * 8 * config.dim**2 + LOSS_BYTES

    def sent_bytes(
        self, size: TrainingSize, config: TrainConfig, workers: int, row_bytes: int
    ) -> int:
        """Vectors of the items for one product, their sums of the other, and a Gramian."""
        if workers == 1:
            return 0
        rows = size.items * row_bytes * (workers - 1) // workers
        return 3 * rows + 2 * 8 * config.dim**2
