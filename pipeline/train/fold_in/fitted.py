"""What a fold-in has to know of the events that the model was fitted to."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from embedmill.pipeline.config import TrainConfig
from embedmill.pipeline.views.shards import Shards
from embedmill.schemas.export import VectorSpec

__all__ = ["Fitted", "fitted_events"]

Doubles = NDArray[np.float64]


@dataclass(frozen=True)
class Fitted:
    """Sums over the events that the model was fitted to.

    `mean_power` is the mean of weight to the power `weight_power`: sample weights have mean 1.
    `degree_N` are the sums of the sample weights by row of the other side, `count_N` the numbers of
    events. `deviation` is the standard deviation of the weights. `mean_square` is the mean squared
    singular value of the spectral objective's matrix; 0 where it is not needed.
    """

    mean_power: float
    degree_N: Doubles
    count_N: Doubles
    deviation: float = 1.0
    mean_square: float = 0.0

    def sample_weights(self, weight: NDArray[np.floating], power: float) -> Doubles:
        """What events of these weights count."""
        return powers(weight, power) / self.mean_power


def fitted_events(spec: VectorSpec, config: TrainConfig, shards: Shards, side: str) -> Fitted:
    """Read all events that the model was fitted to, a partition at a time.

    Args:
        spec: of the exported vectors.
        config: of the training.
        shards: the events.
        side: "users" or "items", whose rows will be folded in.
    """
    other = "item_row" if side == "users" else "user_row"
    rows = spec.items if side == "users" else spec.users
    power_N, count_N, total, square = np.zeros(rows), np.zeros(rows), 0.0, 0.0
    for split in spec.fitted:
        for partition in range(shards.partitions):
            row, weight = shards.read(split, partition, [other, "weight"])
            power_N += np.bincount(row, powers(weight, config.weight_power), rows)
            count_N += np.bincount(row, minlength=rows)
            total += float(weight.sum(dtype=np.float64))
            square += float(np.square(weight, dtype=np.float64).sum())
    events = max(1.0, count_N.sum())
    mean = power_N.sum() / events or 1.0
    variance = square / events - (total / events) ** 2
    found = Fitted(mean, power_N / mean, count_N, max(variance, 0.0) ** 0.5 or 1.0)
    if spec.objective != "spectral" or side == "users":
        return found
    squares = _mean_square(spec, config, shards, found)
    return Fitted(found.mean_power, found.degree_N, count_N, found.deviation, squares)


def _mean_square(spec: VectorSpec, config: TrainConfig, shards: Shards, found: Fitted) -> float:
    """Mean squared singular value of d^-a R e^-b, as `train.closed_form.subspace` has it.

    Users own their events: a pair's events are in one partition.
    """
    parts, item_I = [], np.zeros(spec.items)
    for partition in range(shards.partitions):
        user, item, weight = shards.concatenated(
            spec.fitted, [partition], ["user_row", "item_row", "weight"]
        )
        weight = found.sample_weights(weight, config.weight_power)
        item_I += np.bincount(item, weight, spec.items)
        key, pair = np.unique(user * spec.items + item, return_inverse=True)
        parts.append((key, np.bincount(pair, weight, len(key))))
    key, weight = (np.concatenate(one) for one in zip(*parts, strict=True))
    user, item = np.divmod(key, spec.items)
    powers_of = config.spectral
    scale = _inverse(found.degree_N, powers_of.user_power)[user]
    scale *= _inverse(item_I, powers_of.item_power)[item]
    smaller = min((found.degree_N > 0).sum(), (item_I > 0).sum())
    return float(np.square(weight * scale).sum()) / max(1, int(smaller))


def powers(weight: NDArray[np.floating], power: float) -> Doubles:
    """Weights to a power, 0 for those that are not positive, as in training."""
    positive = np.asarray(weight, np.float64)
    return np.where(positive > 0, np.maximum(positive, 0) ** power, 0)


def _inverse(degree: Doubles, power: float) -> Doubles:
    """Degrees to a negative power, 0 for a degree of 0."""
    return np.where(degree > 0, np.maximum(degree, 1e-300) ** -power, 0)
