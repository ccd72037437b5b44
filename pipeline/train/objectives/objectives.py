"""All objectives by name: those of the losses, and those whose rows are solved for."""

from __future__ import annotations

from embedmill.pipeline.config import TrainConfig
from embedmill.pipeline.train.losses import LOSSES, Objective

__all__ = ["OBJECTIVES", "begins_spectral", "has_bias", "is_smoothed", "similarity_of"]

OBJECTIVES: dict[str, Objective] = {
    **LOSSES,
    "ials": Objective(None, ranking=True, negatives=False, biased=False, similarity="dot"),
}


def has_bias(config: TrainConfig) -> bool:
    """Whether users and items have biases."""
    biased = OBJECTIVES[config.objective].biased
    return config.bias if biased is None else biased


def similarity_of(config: TrainConfig) -> str:
    """How users and items are compared in training, "cosine" or "dot"."""
    return OBJECTIVES[config.objective].similarity or config.similarity


def begins_spectral(config: TrainConfig) -> bool:
    """Whether tables begin spectral: where steps learn to rank items for users."""
    return config.init == "spectral" and _ranks_by_steps(config)


def is_smoothed(config: TrainConfig) -> bool:
    """Whether item vectors are smoothed: where steps rank, and vectors have length one."""
    cosine = similarity_of(config) == "cosine"
    return config.smoothing.weight > 0 and cosine and _ranks_by_steps(config)


def _ranks_by_steps(config: TrainConfig) -> bool:
    objective = OBJECTIVES[config.objective]
    return objective.ranking and not objective.pairs and objective.loss is not None
