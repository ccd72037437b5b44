"""Skip-gram with negative sampling, in blocks of centers that stay in cache.

Legend: B events of this worker, U distinct centers, V distinct contexts, K negatives, N distinct
ones of these, R centers (or pairs) of a block, H events of a block with their context among the
negatives, D columns.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from embedmill.pipeline.train.losses.batch_blocks import block_rows, positive_columns
from embedmill.pipeline.train.losses.loss import LossInput, LossResult, LossSettings
from embedmill.pipeline.train.losses.row_gradients import add_l2, backward_normalized, normalized

__all__ = ["negative_sampling"]

_PAIRS = 2048  # pairs whose vectors are in memory at once


def negative_sampling(step: LossInput, settings: LossSettings) -> LossResult:
    """Logistic loss of pairs against drawn contexts (Mikolov et al. 2013, equation 4).

    -log s(center . context) - sum over k drawn contexts of log s(-center . drawn), with the
    logistic function s. The step's K negatives are shared by its pairs and count as k =
    `settings.per_pair` for each: the expected gradient is that of k contexts drawn for every
    pair, whose minimum is the matrix of pointwise mutual information less log k (Levy and
    Goldberg 2014). A negative that is the context is left out, as word2vec does. Centers are
    the step's users, contexts its items. Gradients are computed in closed form: the derivative
    by a logit is s - 1 for the pair and s for a negative.

    All pairs of a center have the same logits with the negatives: these are computed once for
    each center, weighted by the pairs that it has in the step.

    Args:
        step: the step; its users are centers, its items contexts.
        settings: `similarity`, `temperature`, `per_pair` and `l2`.
    """
    cosine = settings.similarity == "cosine"
    user_UD, user_U = normalized(step.user_UD, cosine)
    item_VD, item_V = normalized(step.item_VD, cosine)
    share_B = step.weight_B / step.size
    negatives = _Negatives.of(step, settings, item_VD)
    negative_loss, gradient_UD, gradient_ND = _over_blocks(user_UD, share_B, step.user_B, negatives)
    gradient_VD = torch.zeros_like(item_VD)
    gradient_VD.index_add_(0, negatives.row_N, gradient_ND, alpha=1 / settings.temperature)
    pairs = _Pairs(user_UD, item_VD, step.user_B, step.positive_B, share_B)
    loss = negative_loss + pairs.add_gradients(settings.temperature, gradient_UD, gradient_VD)
    backward_normalized(gradient_UD, user_UD, user_U)
    backward_normalized(gradient_VD, item_VD, item_V)
    penalty = add_l2(step, settings, gradient_UD, gradient_VD)
    return LossResult(loss + penalty, gradient_UD, gradient_VD)


@dataclass(frozen=True)
class _Pairs:
    """The pairs: their centers and contexts, and their shares of the batch's mean."""

    user_UD: Tensor
    item_VD: Tensor
    user_B: Tensor
    positive_B: Tensor
    share_B: Tensor

    def add_gradients(self, temperature: float, gradient_UD: Tensor, gradient_VD: Tensor) -> Tensor:
        """Add the gradients of the pairs, some at a time in the same memory; returns their loss."""
        loss = torch.zeros((), dtype=torch.float64, device=self.share_B.device)
        center_RD, context_RD = self.user_UD.new_empty((2, _PAIRS, self.user_UD.shape[1]))
        for start in range(0, len(self.user_B), _PAIRS):
            part = slice(start, start + _PAIRS)
            user_R, positive_R, share_R = (
                self.user_B[part],
                self.positive_B[part],
                self.share_B[part],
            )
            center_RD, context_RD = center_RD[: len(user_R)], context_RD[: len(user_R)]
            torch.index_select(self.user_UD, 0, user_R, out=center_RD)
            torch.index_select(self.item_VD, 0, positive_R, out=context_RD)
            logit_R = torch.linalg.vecdot(center_RD, context_RD) / temperature
            loss += (functional.softplus(-logit_R).double() * share_R).sum()
            slope_R1 = (torch.sigmoid(-logit_R) * share_R / -temperature)[:, None]
            gradient_UD.index_add_(0, user_R, context_RD.mul_(slope_R1))
            gradient_VD.index_add_(0, positive_R, center_RD.mul_(slope_R1))
        return loss


@dataclass(frozen=True)
class _Negatives:
    """Distinct negatives and their weights, and the events whose context is one of them.

    Logits are `center @ logit_DN`; `slope_ND` is their derivative by the center. `event_H` are
    these events in order of their centers, `column_H` the index in N of their contexts.
    """

    row_N: Tensor
    weight_N: Tensor
    logit_DN: Tensor
    slope_ND: Tensor
    event_H: Tensor
    column_H: Tensor

    @staticmethod
    def of(step: LossInput, settings: LossSettings, item_VD: Tensor) -> _Negatives:
        row_N, count_N = torch.unique(step.negative_K, return_counts=True)
        weight_N = count_N.to(item_VD) * (settings.per_pair / max(1, len(step.negative_K)))
        column_B = positive_columns(step, row_N)
        event_H = torch.nonzero(column_B >= 0).squeeze(1)
        event_H = event_H[torch.argsort(step.user_B[event_H])]
        slope_ND = item_VD.index_select(0, row_N) / settings.temperature
        logit_DN = slope_ND.T.contiguous()
        return _Negatives(row_N, weight_N, logit_DN, slope_ND, event_H, column_B[event_H])


def _over_blocks(
    user_UD: Tensor, share_B: Tensor, user_B: Tensor, negatives: _Negatives
) -> tuple[Tensor, Tensor, Tensor]:
    """The loss against the negatives, and its gradients by the centers and by the negatives.

    The latter are still to be divided by the temperature.
    """
    share_U = torch.zeros_like(user_UD[:, 0]).index_add_(0, user_B, share_B)
    gradient_UD, gradient_ND = torch.zeros_like(user_UD), torch.zeros_like(negatives.slope_ND)
    loss = torch.zeros((), dtype=torch.float64, device=user_UD.device)
    rows = block_rows(len(negatives.row_N))
    center_H = user_B[negatives.event_H]
    ends = torch.bincount(center_H // rows, minlength=-(-len(user_UD) // rows)).cumsum(0).tolist()
    for start, first, last in zip(range(0, len(user_UD), rows), [0, *ends][:-1], ends, strict=True):
        part, hit = slice(start, start + rows), slice(first, last)
        user_RD = user_UD[part]
        # The weight of each negative for a center, without the pairs whose context it is.
        share_RN = share_U[part, None].repeat(1, len(negatives.row_N))
        cell = center_H[hit] - start, negatives.column_H[hit]
        share_RN.index_put_(cell, -share_B[negatives.event_H[hit]], accumulate=True)
        share_RN.clamp_(min=0).mul_(negatives.weight_N)
        logit_RN = user_RD @ negatives.logit_DN
        loss += (functional.softplus(logit_RN) * share_RN).sum(dtype=torch.float64)
        slope_RN = share_RN.mul_(logit_RN.sigmoid_())
        torch.mm(slope_RN, negatives.slope_ND, out=gradient_UD[part])
        gradient_ND.addmm_(slope_RN.T, user_RD)
    return loss, gradient_UD, gradient_ND
