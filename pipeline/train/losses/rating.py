"""Rating regression with biases.

Legend: B events here, U distinct users, V distinct items, K negatives, D columns (of a
biased objective the last one is the bias).
"""

from __future__ import annotations

import torch

from pipeline.train.losses.contract import LossSettings, Step, StepLoss
from pipeline.train.losses.rows import decay

__all__ = ["rating"]


def rating(step: Step, settings: LossSettings) -> StepLoss:
    """Squared error of mean + user bias + item bias + inner product (Koren et al. 2009)."""
    user_BD, item_BD = step.user_UD[step.user_B], step.item_VD[step.positive_B]
    inner_B = (user_BD[:, :-1] * item_BD[:, :-1]).sum(1)
    error_B = settings.mean + user_BD[:, -1] + item_BD[:, -1] + inner_B - step.target_B
    share_B = step.weight_B / step.size
    slope_B1 = (2 * share_B * error_B)[:, None]
    pushed_UD = torch.zeros_like(step.user_UD)
    pushed_VD = torch.zeros_like(step.item_VD)
    ones_B1 = torch.ones_like(slope_B1)
    pushed_UD.index_add_(0, step.user_B, slope_B1 * torch.cat([item_BD[:, :-1], ones_B1], 1))
    pushed_VD.index_add_(0, step.positive_B, slope_B1 * torch.cat([user_BD[:, :-1], ones_B1], 1))
    # In double: the square of a large error leaves the range of a float.
    loss = (error_B.double().square() * share_B).sum()
    penalty = decay(step, settings, pushed_UD, pushed_VD)
    return StepLoss(loss + penalty, pushed_UD, pushed_VD)
