"""Vectors of users that the model was not fitted to, from some of their events (fold-in).

Strong generalisation (Liang et al. 2018, arXiv 1802.05814, section 4.2): users are withheld whole,
some of their events make their vectors, the others are what is to be found. With the items' vectors
fixed, some objectives have a user's vector in closed form (`FOLD_INS`); those of the others are
means of the items' vectors, which is the definition for item2vec and an approximation elsewhere.

Legend: U users, M their events, N items, D coordinates as exported.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from embedmill.pipeline.config import Config, TrainConfig, parse
from embedmill.pipeline.evaluate.holdout import Events
from embedmill.pipeline.store.artifact import Artifact
from embedmill.pipeline.views.shards import Shards
from embedmill.pipeline.views.train import Training
from embedmill.pipeline.views.vectors import Vectors
from embedmill.schemas.export import VectorSpec

__all__ = ["FOLD_INS", "FoldIn", "trained_with"]

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Rows = NDArray[np.int64]


@dataclass(frozen=True)
class FoldIn:
    """What makes vectors of new users.

    `mean_power` is the mean, over the events that the model was fitted to, of weight to the power
    `weight_power`: sample weights have mean 1. `degree_N` are the sums of their sample weights by
    item; `gram_DD` is the sum of the outer products of the items' vectors.
    """

    spec: VectorSpec
    config: TrainConfig
    items: Vectors
    mean_power: float
    degree_N: Doubles
    gram_DD: Doubles

    @staticmethod
    def of(spec: VectorSpec, config: TrainConfig, shards: Shards, items: Vectors) -> FoldIn:
        """Read what the objective's closed form needs.

        Args:
            spec: of the exported vectors.
            config: of the training.
            shards: the events.
            items: the items' vectors.
        """
        power_N, gram_DD, events = np.zeros(spec.items), np.zeros((spec.dim, spec.dim)), 0
        if spec.objective in FOLD_INS:
            for split in spec.fitted:
                for partition in range(shards.partitions):
                    row, weight = shards.read(split, partition, ["item_row", "weight"])
                    power_N += np.bincount(row, _powers(weight, config.weight_power), spec.items)
                    events += len(row)
            for _, block_ND in items.blocks():
                gram_DD += block_ND.T.astype(np.float64) @ block_ND
        mean = power_N.sum() / max(1, events) or 1.0
        return FoldIn(spec, config, items, mean, power_N / mean, gram_DD)

    @property
    def closed_form(self) -> bool:
        """Whether the objective has a user's vector in closed form."""
        return self.spec.objective in FOLD_INS

    def sample_weights(self, events: Events) -> Doubles:
        """What each event counts, float64 [M]."""
        return _powers(events.weight, self.config.weight_power) / self.mean_power

    def vectors(self, events: Events, users: int) -> Floats:
        """Vectors of `users` users, float32 [U, D], from their events; zero without any."""
        vector_UD = FOLD_INS.get(self.spec.objective, _means)(self, events, users)
        if self.spec.similarity == "cosine":
            vector_UD = _unit(vector_UD)
        return vector_UD.astype(np.float32)


def trained_with(train: Artifact, config: Config) -> TrainConfig:
    """Section train that a model was trained with: for objective `auto`, what was chosen."""
    search = Training(train).search
    if search is None:
        return config.train
    tree = {**config.model_dump(mode="json"), "train": search.chosen}
    return parse(tree, stored=True).train


def _least_squares(fold_in: FoldIn, events: Events, users: int) -> Doubles:
    """The minimum of a user's loss in iALS, items fixed: see `pipeline.train.als.solve.solve`."""
    ials, spec = fold_in.config.ials, fold_in.spec
    key_M, pair_M = np.unique(events.user * spec.items + events.item, return_inverse=True)
    confidence_M = np.bincount(pair_M, fold_in.sample_weights(events), len(key_M))
    kept = confidence_M > 0
    user_M, item_M = np.divmod(key_M[kept], spec.items)
    confidence_M = confidence_M[kept]
    row_R, at_M = np.unique(item_M, return_inverse=True)
    item_RD = fold_in.items.gather(row_R).astype(np.float64)
    starts = np.searchsorted(user_M, np.arange(users + 1))
    vector_UD = np.zeros((users, spec.dim))
    for user in range(users):
        own = slice(starts[user], starts[user + 1])
        count = own.stop - own.start
        if not count:
            continue
        item_MD = item_RD[at_M[own]]
        frequency = count + ials.unobserved_weight * spec.items
        l2 = ials.regularization * frequency**ials.regularization_power
        system_DD = ials.unobserved_weight * fold_in.gram_DD + l2 * np.eye(spec.dim)
        system_DD += (item_MD.T * confidence_M[own]) @ item_MD
        vector_UD[user] = np.linalg.solve(system_DD, item_MD.T @ confidence_M[own])
    return vector_UD


def _projected(fold_in: FoldIn, events: Events, users: int) -> Doubles:
    """d^-a R e^-b V f of the spectral objective, where an item's vector is e^q V f.

    d are the sums of the users' weights, e those of the items that the model was fitted to; a, b
    and q are user_power, item_power and popularity_power.
    """
    powers = fold_in.config.spectral
    weight_M, degree_M = fold_in.sample_weights(events), fold_in.degree_N[events.item]
    exponent = -powers.item_power - powers.popularity_power
    scale_M = np.where(degree_M > 0, np.maximum(degree_M, 1e-300) ** exponent, 0)
    sum_UD = _sums(fold_in.items, events, weight_M * scale_M, users)
    degree_U = np.bincount(events.user, weight_M, users)
    scale_U = np.where(degree_U > 0, np.maximum(degree_U, 1e-300) ** -powers.user_power, 0)
    return sum_UD * scale_U[:, None]


def _means(fold_in: FoldIn, events: Events, users: int) -> Doubles:
    """Means of the items' vectors; with biases the last coordinate of a user is 1."""
    weight_M = np.ones(len(events.user))
    sum_UD = _sums(fold_in.items, events, weight_M, users)
    count_U = np.bincount(events.user, minlength=users)
    mean_UD = sum_UD / np.maximum(count_U, 1)[:, None]
    if fold_in.spec.bias:
        own_UD = mean_UD[:, :-1]
        own_UD = _unit(own_UD) if fold_in.spec.similarity == "cosine" else own_UD
        mean_UD = np.concatenate((own_UD, np.ones((users, 1))), axis=1)
    return mean_UD


def _sums(items: Vectors, events: Events, weight_M: Doubles, users: int) -> Doubles:
    """Weighted sums of the vectors of each user's items, float64 [U, D]."""
    sum_UD = np.zeros((users, items.dim))
    step = 1 << 16
    for start in range(0, len(events.user), step):
        some = slice(start, start + step)
        item_MD = items.gather(events.item[some]).astype(np.float64)
        np.add.at(sum_UD, events.user[some], item_MD * weight_M[some, None])
    return sum_UD


def _powers(weight: NDArray[np.floating], power: float) -> Doubles:
    """Weights to a power, 0 for those that are not positive, as in training."""
    positive = np.asarray(weight, np.float64)
    return np.where(positive > 0, np.maximum(positive, 0) ** power, 0)


def _unit(vector_UD: Doubles) -> Doubles:
    """Vectors at length 1; zero stays zero."""
    length_U1 = np.linalg.norm(vector_UD, axis=1, keepdims=True)
    return vector_UD / np.where(length_U1 > 0, length_U1, 1)


# Closed forms by objective; of the others a user is the mean of its items.
FOLD_INS: dict[str, Callable[[FoldIn, Events, int], Doubles]] = {
    "ials": _least_squares,
    "spectral": _projected,
}
