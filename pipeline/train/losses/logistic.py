"""Skip-gram with negative sampling, in blocks of the batch that stay in cache.

Legend: B events here, R events of a block, H of these that have their positive among the
negatives, U distinct centers, V distinct contexts, K negatives, N distinct ones of these,
D columns.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from pipeline.train.losses.contract import LossSettings, Step, StepLoss
from pipeline.train.losses.rows import decay, scaled, unscale

__all__ = ["negative_sampling"]

_BLOCK = 1 << 18  # logits held at once: 1 MiB of float32
_LEAST = 64  # events of a block, below which matrix products lose speed


def negative_sampling(step: Step, settings: LossSettings) -> StepLoss:
    """Logistic loss of pairs against drawn ones (Mikolov et al. 2013, equation 4).

    -log s(center . context) - sum over k drawn contexts of log s(-center . drawn), with the
    logistic function s. The step's K negatives are shared by its pairs, and weigh as k =
    `settings.per_pair` for each: the expected gradient is that of k drawn for every pair, whose
    minimum is the matrix of pointwise mutual information less log k (Levy and Goldberg 2014).
    A negative that is the context is left out, as word2vec does. Centers are the step's
    users, contexts its items. The gradients are worked out by hand: d loss / d logit is
    s - 1 for the pair and s for a negative.
    """
    cosine = settings.similarity == "cosine"
    user_UD, user_U = scaled(step.user_UD, cosine)
    item_VD, item_V = scaled(step.item_VD, cosine)
    user_BD = user_UD.index_select(0, step.user_B)
    positive_BD = item_VD.index_select(0, step.positive_B)
    logit_B = torch.linalg.vecdot(user_BD, positive_BD) / settings.temperature
    share_B = step.weight_B / step.size
    scale_B = share_B / settings.temperature
    slope_B1 = (torch.sigmoid(-logit_B) * -scale_B)[:, None]

    row_N, times_N = torch.unique(step.negative_K, return_counts=True)
    weight_N = times_N.to(item_VD) * (settings.per_pair / max(1, len(step.negative_K)))
    column_V = torch.full_like(step.item_VD[:, 0], -1, dtype=torch.int64)
    column_V[row_N] = torch.arange(len(row_N), device=row_N.device)
    column_B = column_V.index_select(0, step.positive_B)
    negative_ND = item_VD.index_select(0, row_N)
    logit_DN = (negative_ND / settings.temperature).T.contiguous()
    slope_BD, slope_ND = positive_BD * slope_B1, torch.zeros_like(negative_ND)
    loss_B = functional.softplus(-logit_B)
    rows = max(_LEAST, _BLOCK // max(1, len(row_N)))
    for start in range(0, len(user_BD), rows):
        part = slice(start, start + rows)
        user_RD = user_BD[part]
        logit_RN = _logits(user_RD, logit_DN, column_B[part])
        loss_B[part] += functional.softplus(logit_RN) @ weight_N
        slope_RN = logit_RN.sigmoid_().mul_(weight_N).mul_(scale_B[part, None])
        slope_BD[part].addmm_(slope_RN, negative_ND)
        slope_ND.addmm_(slope_RN.T, user_RD)

    pushed_UD, pushed_VD = torch.zeros_like(step.user_UD), torch.zeros_like(step.item_VD)
    pushed_UD.index_add_(0, step.user_B, slope_BD)
    pushed_VD.index_add_(0, step.positive_B, user_BD * slope_B1)
    pushed_VD.index_add_(0, row_N, slope_ND)
    unscale(pushed_UD, user_UD, user_U)
    unscale(pushed_VD, item_VD, item_V)
    loss = (loss_B.double() * share_B).sum()
    penalty = decay(step, share_B * settings.l2, pushed_UD, pushed_VD) if settings.l2 else 0.0
    return StepLoss(loss + penalty, pushed_UD, pushed_VD)


def _logits(user_RD: Tensor, logit_DN: Tensor, column_R: Tensor) -> Tensor:
    """Logits of the block's centers with the negatives; -inf where one is the context."""
    logit_RN = user_RD @ logit_DN
    event_H = torch.nonzero(column_R >= 0).squeeze(1)
    logit_RN[event_H, column_R[event_H]] = -torch.inf
    return logit_RN
