"""Bayesian personalised ranking.

Legend: R events of a block, N distinct negatives.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from embedmill.pipeline.train.losses.contract import LossSettings, Step, StepLoss
from embedmill.pipeline.train.losses.contrast import contrasted

__all__ = ["bpr"]


def bpr(step: Step, settings: LossSettings) -> StepLoss:
    """-log s(positive's score - negative's), s the logistic function (Rendle et al., UAI 2009).

    Each event makes a pair with every one of the step's shared negatives, of which the mean is
    taken: its expected gradient is that of the paper's one negative, drawn anew for each
    event. A negative that is the event's own item makes no pair. The paper's regularisation is
    `l2`, on the user's and the positive's row.
    """
    return contrasted(step, settings, _compare)


def _compare(score_RN: Tensor, positive_R: Tensor, weight_N: Tensor) -> tuple[Tensor, Tensor]:
    score_RN.sub_(positive_R[:, None])
    loss_R = functional.softplus(score_RN) @ weight_N
    slope_R = -torch.sum(score_RN.sigmoid_().mul_(weight_N), 1)
    return loss_R, slope_R
