"""All objectives by name: those of the losses, and those whose rows are solved for."""

from __future__ import annotations

from pipeline.config import TrainConfig
from pipeline.train.losses import LOSSES, Objective

__all__ = ["OBJECTIVES", "has_bias", "similarity_of"]

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
