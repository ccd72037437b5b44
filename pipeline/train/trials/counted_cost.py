"""What a training costs, counted from its sizes: the same number on every machine.

One unit is about a second of one core of 3 GHz with AVX-512. The constants were measured; only
their ratios matter, since costs are compared with each other.
"""

from __future__ import annotations

from embedmill.pipeline.config import TrainConfig
from embedmill.pipeline.train.als.spectral_start import START_PASSES
from embedmill.pipeline.train.plan import TrainingSize

__all__ = ["epoch_cost", "training_cost", "validation_cost"]

# Units for a multiplication of ...
_SPARSE = 8e-10  # an event's vector: read in random order
_SQUARE = 5e-11  # a row's vector with a matrix of D x D
_SCORE = 4e-11  # a pair of event and negative, in blocks that stay in cache
_EVENT = 6e-9  # an event and a coordinate in a step: lookup, gradient, update
_OVERHEAD = 1e-6  # an event in a step
_RANKED = 4e-11  # a user's vector with an item's, in validation
_TOP = 5e-9  # the score of a user and an item, in validation


def epoch_cost(config: TrainConfig, size: TrainingSize) -> float:
    """The cost of an epoch, without validation.

    Args:
        config: section train, of another objective than auto.
        size: rows and train events.
    """
    if config.objective == "ials":
        products = 2 * (config.ials.cg_steps + 1) * size.train * config.dim
        return products * _SPARSE + 2 * size.rows * config.dim**2 * _SQUARE
    if config.objective == "spectral":
        passes = config.spectral.passes + 1  # each with the events and with their transpose
        sparse, square = 2 * size.train * _SPARSE, 2 * size.rows * config.dim * _SQUARE
        return passes * config.dim * (sparse + square)
    pairs = size.train * (config.negatives + 1)
    return size.train * (config.dim * _EVENT + _OVERHEAD) + 3 * pairs * config.dim * _SCORE


def validation_cost(config: TrainConfig, size: TrainingSize) -> float:
    """The cost of ranking all items for the validation users, once."""
    pairs = min(config.valid_users, size.users) * size.items
    return pairs * (config.dim * _RANKED + _TOP)


def training_cost(config: TrainConfig, size: TrainingSize) -> float:
    """The cost of the start and of all epochs of a training that does not stop early."""
    epochs = config.epochs * (epoch_cost(config, size) + validation_cost(config, size))
    return start_cost(config, size) + epochs


def start_cost(config: TrainConfig, size: TrainingSize) -> float:
    """The cost of the passes from which ials begins; 0 for others."""
    if config.objective != "ials" or config.init != "spectral":
        return 0.0
    passes = {"objective": "spectral", "dim": config.dim, "spectral": {"passes": START_PASSES}}
    return epoch_cost(TrainConfig.model_validate(passes), size)
