"""Rating regression with biases.

Legend: B events here, U distinct users, V distinct items, K negatives, D columns (of a
biased objective the last one is the bias).
"""

from __future__ import annotations

import torch

from embedmill.pipeline.train.losses.contract import LossSettings, Step, StepLoss
from embedmill.pipeline.train.losses.rows import decay

__all__ = ["rating"]


def rating(step: Step, settings: LossSettings) -> StepLoss:
    """Squared error of mean + user bias + item bias + inner product (Koren et al. 2009)."""
    user_BD = step.user_UD.index_select(0, step.user_B)
    item_BD = step.item_VD.index_select(0, step.positive_B)
    inner_B = torch.linalg.vecdot(user_BD[:, :-1], item_BD[:, :-1])
    error_B = settings.mean + user_BD[:, -1] + item_BD[:, -1] + inner_B - step.target_B
    share_B = step.weight_B / step.size
    slope_B1 = (2 * share_B * error_B)[:, None]
    # The slope by a vector is the other's vector, the slope by a bias 1; both are copies.
    user_BD[:, -1] = item_BD[:, -1] = 1.0
    pushed_UD = torch.zeros_like(step.user_UD)
    pushed_VD = torch.zeros_like(step.item_VD)
    pushed_UD.index_add_(0, step.user_B, item_BD.mul_(slope_B1))
    pushed_VD.index_add_(0, step.positive_B, user_BD.mul_(slope_B1))
    # In double: the square of a large error leaves the range of a float.
    loss = (error_B.double().square() * share_B).sum()
    penalty = decay(step, settings, pushed_UD, pushed_VD)
    return StepLoss(loss + penalty, pushed_UD, pushed_VD)
