"""What a loss takes and returns: the distinct rows of a step, and a loss with its gradients.

Legend: B events of this worker, U distinct users, V distinct items, K negatives, D columns (of
an objective with biases the last one is the bias).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

__all__ = ["Loss", "LossInput", "LossResult", "LossSettings"]


@dataclass(frozen=True)
class LossSettings:
    """What a loss takes from the config.

    Args:
        biased: the last column of a row is its bias.
        similarity: how vectors are compared, "dot" or "cosine".
        temperature: scores are divided by it.
        temperature_ratio: of BSL, the factor of the negatives' term; None: softmax loss.
        l2: L2 that each event adds on its user's and its item's row.
        l2_bias: L2 of the biases; None: `l2`, as for all columns.
        mean: mean of the train ratings.
        deviation: standard deviation of the train ratings; the loss is of ratings in its units.
        per_pair: as how many negatives those of the step count for each pair of items.
        margin: of the cosine contrastive loss.
        negative_weight: of the cosine contrastive loss.
        activation: of PSL, the surrogate activation by its name; None: another loss.
        threshold_temperature: of SL@K; events are weighed by the logistic function of how far the
            positive's score is above the user's threshold, divided by it. None: not weighed.
        rounded: factors of large matrix products are rounded to bfloat16.
    """

    biased: bool = False
    similarity: str = "dot"
    temperature: float = 1.0
    l2: float = 0.0
    l2_bias: float | None = None
    mean: float = 0.0
    deviation: float = 1.0
    per_pair: float = 1.0
    margin: float = 0.0
    negative_weight: float = 1.0
    rounded: bool = False
    temperature_ratio: float | None = None
    activation: str | None = None
    threshold_temperature: float | None = None


@dataclass(frozen=True)
class LossInput:
    """One worker's part of a global step.

    Args:
        user_UD: rows of the distinct users.
        item_VD: rows of the distinct items.
        user_B: each event's user, as a row of `user_UD`.
        positive_B: each event's item, as a row of `item_VD`.
        negative_K: the step's shared negatives, as rows of `item_VD`.
        log_expected_K: subtracted from the negatives' logits.
        weight_B: sample weights of the events.
        target_B: ratings, the weights that the log has.
        size: events of the whole global batch.
        user_l2_U: factors of the L2 that an event adds on a user's row; None: 1.
        item_l2_V: factors of the L2 that an event adds on an item's row; None: 1.
        threshold_U: score of each user's K-th best item; None where events are not weighed by it.
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
    user_l2_U: Tensor | None = None
    item_l2_V: Tensor | None = None
    threshold_U: Tensor | None = None


@dataclass(frozen=True)
class LossResult:
    """This worker's share of the global batch's mean loss, and its gradients by the rows."""

    loss: Tensor
    user_UD: Tensor
    item_VD: Tensor


Loss = Callable[[LossInput, LossSettings], LossResult]
