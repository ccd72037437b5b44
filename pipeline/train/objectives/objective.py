"""An objective: a method on a source of examples, for a prediction task."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from embedmill.pipeline.config import TrainConfig
from embedmill.pipeline.train.graph.event_graph import EventGraph
from embedmill.pipeline.train.losses import LossSettings
from embedmill.pipeline.train.objectives.example_sources import EVENTS, ExampleSource
from embedmill.pipeline.train.objectives.prediction_tasks import RANKING, PredictionTask
from embedmill.pipeline.train.objectives.training_method import TrainingMethod

__all__ = ["Objective", "SpectralStart"]


class SpectralStart(Protocol):
    """Replaces the normal initial vectors of both tables; a collective."""

    def __call__(self, graph: EventGraph, *, seed: int, scale: float) -> None:
        """Set the tables of a graph that is not scaled.

        Args:
            graph: the events and both tables.
            seed: the run's seed, with which the normal values were drawn.
            scale: their standard deviation.
        """


@dataclass(frozen=True)
class Objective:
    """What a training optimises.

    Args:
        method: how the tables are changed: by gradients of a loss, or by least squares.
        source: what is trained on: events, or pairs of items.
        task: what the model predicts, and so how it is validated: a ranking, or ratings.
        bias: whether users and items have biases; None: as the config says.
        similarity: the only one that the objective has; None: as the config says.
        uses_graph: whether the graph of the events may smooth the vectors.
        spectral_start: sets both tables to begin with from the singular vectors of the events,
            where the config says so; None: they begin with normal values.
    """

    method: TrainingMethod
    source: ExampleSource = EVENTS
    task: PredictionTask = RANKING
    bias: bool | None = None
    similarity: str | None = None
    uses_graph: bool = False
    spectral_start: SpectralStart | None = None

    def has_bias(self, config: TrainConfig) -> bool:
        """Whether users and items have biases."""
        return config.bias if self.bias is None else self.bias

    def columns(self, config: TrainConfig) -> tuple[slice, ...]:
        """Groups of a table's columns that are scaled separately: the vector, and a bias."""
        vector = slice(0, config.dim)
        if self.has_bias(config):
            return vector, slice(config.dim, config.dim + 1)
        return (vector,)

    def similarity_in_training(self, config: TrainConfig) -> str:
        """How users and items are compared in training, "cosine" or "dot"."""
        return self.similarity or config.similarity

    def published_similarity(self, config: TrainConfig) -> str:
        """How vectors of the published tables are to be compared, "cosine" or "dot"."""
        if self.is_smoothed(config):
            return "dot"  # the length of a smoothed vector is a part of it
        return self.source.similarity or self.similarity_in_training(config)

    def starts_spectral(self, config: TrainConfig) -> bool:
        """Whether tables are initialized with singular vectors of the graph of the events."""
        return config.init == "spectral" and self.spectral_start is not None

    def is_smoothed(self, config: TrainConfig) -> bool:
        """Whether item vectors are smoothed over the graph, which needs vectors of length one."""
        cosine = self.similarity_in_training(config) == "cosine"
        return config.smoothing.weight > 0 and cosine and self.uses_graph

    def initial_scale(self, config: TrainConfig) -> float:
        """Standard deviation of the values that tables start with."""
        return config.init_scale or self.method.initial_scale(config.dim)

    def loss_settings(self, config: TrainConfig, scale: tuple[float, float]) -> LossSettings:
        """The settings of the loss; `scale` is mean and standard deviation of the ratings."""
        return LossSettings(
            biased=self.has_bias(config),
            similarity=self.similarity_in_training(config),
            temperature=config.temperature,
            l2=config.l2,
            l2_bias=config.l2_bias,
            mean=scale[0],
            deviation=scale[1],
            per_pair=config.item2vec.negatives_per_pair,
            margin=config.ccl.margin,
            negative_weight=config.ccl.negative_weight,
            rounded=config.precision == "bfloat16",
            temperature_ratio=config.temperature_ratio if config.loss == "bsl" else None,
            activation=config.activation,
            threshold_temperature=config.top_k_temperature,
        )
