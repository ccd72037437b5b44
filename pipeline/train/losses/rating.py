"""Rating regression with biases.

Legend: B events of this worker, U distinct users, V distinct items, K negatives, D columns (of a
biased objective the last one is the bias).
"""

from __future__ import annotations

import torch

from embedmill.pipeline.train.losses.loss import LossInput, LossResult, LossSettings
from embedmill.pipeline.train.losses.row_gradients import add_l2

__all__ = ["rating"]


def rating(step: LossInput, settings: LossSettings) -> LossResult:
    """Squared error of user bias + item bias + inner product (Koren et al. 2009).

    Ratings are taken as deviations from their mean in units of their standard deviation, so that
    learning rate, L2 and initial values mean the same on every scale, of 5 stars or 100 points.

    Args:
        step: the step; `target_B` are the ratings.
        settings: `mean`, `deviation`, `l2` and `l2_bias`.
    """
    user_BD = step.user_UD.index_select(0, step.user_B)
    item_BD = step.item_VD.index_select(0, step.positive_B)
    inner_B = torch.linalg.vecdot(user_BD[:, :-1], item_BD[:, :-1])
    target_B = (step.target_B - settings.mean) / settings.deviation
    error_B = user_BD[:, -1] + item_BD[:, -1] + inner_B - target_B
    share_B = step.weight_B / step.size
    slope_B1 = (2 * share_B * error_B)[:, None]
    # The derivative by a vector is the other's vector, by a bias 1. Both tensors are copies.
    user_BD[:, -1] = item_BD[:, -1] = 1.0
    gradient_UD = torch.zeros_like(step.user_UD)
    gradient_VD = torch.zeros_like(step.item_VD)
    gradient_UD.index_add_(0, step.user_B, item_BD.mul_(slope_B1))
    gradient_VD.index_add_(0, step.positive_B, user_BD.mul_(slope_B1))
    # In float64: the square of a large error overflows float32.
    loss = (error_B.double().square() * share_B).sum()
    penalty = add_l2(step, settings, gradient_UD, gradient_VD)
    return LossResult(loss + penalty, gradient_UD, gradient_VD)
