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

    `biased`: the last column of a row is its bias; `mean`: train mean of the ratings.
    """

    biased: bool = False
    similarity: str = "dot"
    temperature: float = 1.0
    l2: float = 0.0
    mean: float = 0.0


@dataclass(frozen=True)
class Step:
    """One worker's part of a global step.

    `user_B`, `positive_B`, `negative_K` point into `user_UD` and `item_VD`. `weight_B` is how
    much an event counts, `target_B` the rating. `log_expected_K` is subtracted from the
    negatives' logits. `size` is the number of events of the whole global batch.
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


@dataclass(frozen=True)
class StepLoss:
    """This worker's share of the global batch's mean loss, and its gradients."""

    loss: Tensor
    user_UD: Tensor
    item_VD: Tensor


@dataclass(frozen=True)
class Objective:
    """A loss and what training must know of it.

    `biased`: it cannot do without biases; `negatives`: it ranks against them. `metrics` can
    choose the best epoch, the first by default; `rising` says whether more is better.
    """

    loss: Callable[[Step, LossSettings], StepLoss]
    biased: bool
    negatives: bool
    metrics: tuple[str, ...]
    rising: bool
