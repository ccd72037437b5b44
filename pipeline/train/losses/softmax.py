"""Sampled softmax.

Legend: B events here, U distinct users, V distinct items, K negatives, D columns (of a
biased objective the last one is the bias).
"""

from __future__ import annotations

import torch
from torch.nn import functional

from pipeline.train.losses.contract import LossSettings, Step, StepLoss
from pipeline.train.losses.rows import decay, scaled, unscale

__all__ = ["sampled_softmax"]


def sampled_softmax(step: Step, settings: LossSettings) -> StepLoss:
    """Cross-entropy of the positive against itself and the negatives (Jean et al. 2015).

    A negative that is the positive is left out. With cosine similarity, vectors are scaled to
    length one first. Where items have a bias it is added to the similarity, before the
    temperature; the user's is not used. L2 falls on the user's and the positive's row of each
    event. The gradients are worked out by hand: with softmax P, d loss / d logit = P - 1 for
    the positive and P for a negative.
    """
    end = step.item_VD.shape[1] - int(settings.biased)
    cosine = settings.similarity == "cosine"
    user_UD, user_U = scaled(step.user_UD[:, :end], cosine)
    item_VD, item_V = scaled(step.item_VD[:, :end], cosine)
    user_BD, negative_KD = user_UD[step.user_B], item_VD[step.negative_K]
    positive_BD = item_VD[step.positive_B]
    offset_K, positive_B = -step.log_expected_K, (user_BD * positive_BD).sum(1)
    if settings.biased:
        offset_K = offset_K + step.item_VD[step.negative_K, end] / settings.temperature
        positive_B = positive_B + step.item_VD[step.positive_B, end]
    positive_B = positive_B / settings.temperature
    logit_BK = torch.addmm(offset_K, user_BD, negative_KD.T, alpha=1 / settings.temperature)
    logit_BK.masked_fill_(step.positive_B[:, None] == step.negative_K, -torch.inf)
    # log(1 + exp(x)) keeps the digits that a difference of two logarithms would lose.
    loss_B = functional.softplus(torch.logsumexp(logit_BK, 1) - positive_B)
    total_B = positive_B + loss_B

    share_B = step.weight_B / step.size
    scale_B = share_B / settings.temperature
    slope_BK = logit_BK.sub_(total_B[:, None]).exp_().mul_(scale_B[:, None])
    slope_B = torch.expm1(-loss_B) * scale_B
    slope_BD = torch.addmm(slope_B[:, None] * positive_BD, slope_BK, negative_KD)
    pushed_UD = torch.zeros_like(step.user_UD)
    pushed_VD = torch.zeros_like(step.item_VD)
    pushed_UD[:, :end].index_add_(0, step.user_B, slope_BD)
    pushed_VD[:, :end].index_add_(0, step.positive_B, slope_B[:, None] * user_BD)
    pushed_VD[:, :end].index_add_(0, step.negative_K, slope_BK.T @ user_BD)
    if settings.biased:
        pushed_VD[:, end].index_add_(0, step.positive_B, slope_B)
        pushed_VD[:, end].index_add_(0, step.negative_K, slope_BK.sum(0))
    unscale(pushed_UD[:, :end], user_UD, user_U)
    unscale(pushed_VD[:, :end], item_VD, item_V)
    loss = (loss_B.double() * share_B).sum()
    penalty = decay(step, share_B * settings.l2, pushed_UD, pushed_VD) if settings.l2 else 0.0
    return StepLoss(loss + penalty, pushed_UD, pushed_VD)
