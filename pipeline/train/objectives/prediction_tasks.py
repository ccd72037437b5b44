"""What a model predicts: a ranking of items for a user, or a user's rating of an item."""

from __future__ import annotations

from typing import Protocol

from embedmill.pipeline.config import TrainConfig
from embedmill.pipeline.train.data.sample_weights import SampleWeights, normalized_weights
from embedmill.pipeline.train.data.train_events import Events, mean_weight, weight_deviation
from embedmill.pipeline.train.model import Model
from embedmill.pipeline.train.runtime import Runtime
from embedmill.pipeline.train.validation import Validation, ranking_metrics, rating_errors

__all__ = ["RANKING", "RATINGS", "PredictionTask"]


class PredictionTask(Protocol):
    """What the weights of events mean, and how a model is validated."""

    def is_better(self, value: float, best: float) -> bool:
        """Whether a metric has improved."""

    def scale(self, events: Events, runtime: Runtime) -> tuple[float, float]:
        """Mean and standard deviation of the ratings; 0 and 1 in a ranking. A collective."""

    def sample_weights(
        self, events: Events, config: TrainConfig, runtime: Runtime
    ) -> SampleWeights:
        """How much each event counts in the loss; a collective."""

    def validate(self, model: Model, validation: Validation) -> dict[str, float]:
        """Metrics over the validation users; a collective."""


class _Ranking:
    """Relevant items are to rank high; the weight of an event says how much it counts."""

    def is_better(self, value: float, best: float) -> bool:
        return value > best

    def scale(self, events: Events, runtime: Runtime) -> tuple[float, float]:
        return 0.0, 1.0

    def sample_weights(
        self, events: Events, config: TrainConfig, runtime: Runtime
    ) -> SampleWeights:
        return normalized_weights(events, config.weight_power, runtime.layout, runtime.group)

    def validate(self, model: Model, validation: Validation) -> dict[str, float]:
        return ranking_metrics(validation, model.ranking_vectors(validation.user_B))


class _Ratings:
    """The weight of an event is the rating to predict; every event counts once."""

    def is_better(self, value: float, best: float) -> bool:
        return value < best

    def scale(self, events: Events, runtime: Runtime) -> tuple[float, float]:
        mean = mean_weight(events, runtime.layout, runtime.group)
        return mean, weight_deviation(events, mean, runtime.layout, runtime.group)

    def sample_weights(
        self, events: Events, config: TrainConfig, runtime: Runtime
    ) -> SampleWeights:
        return SampleWeights()

    def validate(self, model: Model, validation: Validation) -> dict[str, float]:
        users, items = model.users.embedding, model.items.embedding
        return rating_errors(validation, users, items, model.settings)


RANKING: PredictionTask = _Ranking()
RATINGS: PredictionTask = _Ratings()
