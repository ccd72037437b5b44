"""Bayesian personalised ranking.

Legend: R events of a block, N distinct negatives.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from embedmill.pipeline.train.losses.contrastive import contrastive
from embedmill.pipeline.train.losses.loss import LossInput, LossResult, LossSettings

__all__ = ["bpr"]


def bpr(step: LossInput, settings: LossSettings) -> LossResult:
    """-log s(positive's score - negative's), s the logistic function (Rendle et al., UAI 2009).

    Each event is compared with every one of the step's shared negatives, and the mean over them
    is taken. The expected gradient equals that of the paper, which draws one negative for each
    event. A negative that is the event's own item is left out. The paper's regularisation is
    `l2`, on the user's and the positive's row.

    Args:
        step: the step.
        settings: `similarity`, `temperature`, `biased`, `l2` and `l2_bias`.
    """
    return contrastive(step, settings, _compare)


def _compare(score_RN: Tensor, positive_R: Tensor, weight_N: Tensor) -> tuple[Tensor, Tensor]:
    score_RN.sub_(positive_R[:, None])
    loss_R = functional.softplus(score_RN) @ weight_N
    slope_R = -torch.sum(score_RN.sigmoid_().mul_(weight_N), 1)
    return loss_R, slope_R
