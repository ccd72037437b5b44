"""What a loss gets and gives: the distinct rows of a step, and a loss with its gradients.

Legend: B events here, U distinct users, V distinct items, K negatives, D columns (of a
biased objective the last one is the bias).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

__all__ = ["LossSettings", "Objective", "Step", "StepLoss"]


@dataclass(frozen=True)
class LossSettings:
    """What a loss takes from the config.

    `biased`: the last column of a row is its bias; `l2_bias`: its L2, None for `l2` as all
    columns; `mean`: train mean of the ratings; `per_pair`: how many negatives those of the step
    are to weigh as, for each event; `margin` and `negative_weight` of the cosine contrastive
    loss; `rounded`: the factors of large matrix products are rounded to bfloat16.
    """

    biased: bool = False
    similarity: str = "dot"
    temperature: float = 1.0
    l2: float = 0.0
    l2_bias: float | None = None
    mean: float = 0.0
    per_pair: float = 1.0
    margin: float = 0.0
    negative_weight: float = 1.0
    rounded: bool = False


@dataclass(frozen=True)
class Step:
    """One worker's part of a global step.

    `user_B`, `positive_B`, `negative_K` point into `user_UD` and `item_VD`. `weight_B` is how
    much an event counts, `target_B` the rating. `log_expected_K` is subtracted from the
    negatives' logits. `size` is the number of events of the whole global batch.
    `user_decay_U` and `item_decay_V` multiply the L2 that an event puts on its rows; None: by 1.
    """

    user_UD: Tensor
    item_VD: Tensor
    user_B: Tensor
    positive_B: Tensor
    negative_K: Tensor
    log_expected_K: Tensor
    weight_B: Tensor
    target_B: Tensor
    size: int
    user_decay_U: Tensor | None = None
    item_decay_V: Tensor | None = None


@dataclass(frozen=True)
class StepLoss:
    """This worker's share of the global batch's mean loss, and its gradients."""

    loss: Tensor
    user_UD: Tensor
    item_VD: Tensor


@dataclass(frozen=True)
class Objective:
    """What is trained for.

    `loss` is what steps lower, None where rows are solved for (`embedmill.pipeline.train.als`).
    `ranking`: validated by ranking the catalogue, otherwise by rating. `negatives`: it needs
    them. `biased`: whether there are biases, None where the config says; `similarity`: the
    only one that it knows, None where the config says. `pairs`: it is trained on pairs of items
    instead of events; then the step's users are centers and its items contexts.
    """

    loss: Callable[[Step, LossSettings], StepLoss] | None
    ranking: bool
    negatives: bool
    biased: bool | None = None
    similarity: str | None = None
    pairs: bool = False

    @property
    def metrics(self) -> tuple[str, ...]:
        """Those that can choose the best epoch, the first by default."""
        if self.ranking:
            return ("ndcg@10", "recall@10", "hit_rate@10", "mrr@10")
        return ("rmse", "mae")
