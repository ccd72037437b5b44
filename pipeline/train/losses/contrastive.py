"""Losses that compare each event with the shared negatives, in blocks that stay in cache.

Legend: B events of this worker, R events of a block, H of these that have their positive among the
negatives, U distinct users, V distinct items, K negatives, N distinct ones of these,
D columns (of a biased objective the last one is the bias).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from embedmill.pipeline.train.losses.batch_blocks import block_rows, positive_columns
from embedmill.pipeline.train.losses.loss import LossInput, LossResult, LossSettings
from embedmill.pipeline.train.losses.row_gradients import (
    add_l2,
    backward_normalized,
    normalized,
    threshold_weights,
)

__all__ = ["Compare", "contrastive"]

# compare(score_RN, positive_R, weight_N) takes the negatives' scores (-inf where a negative is the
# positive), the positives' scores and the negatives' weights. It returns each event's loss [R] and
# its derivative by the positive's score [R], and overwrites score_RN with its derivatives by the
# negatives' scores.
Compare = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]


def contrastive(
    step: LossInput, settings: LossSettings, compare: Compare, *, corrected: bool = False
) -> LossResult:
    """The weighted mean over the batch of the losses that `compare` returns, with gradients.

    A score is the similarity, plus the item's bias where there is one, over the temperature.
    The negatives' weights `weight_N` sum to 1: one that was drawn twice has twice the weight, and
    with `corrected`, one that is expected twice as often half of it.
    L2 is added on the user's and the positive's row of each event. No tensor of size B x K is
    kept.

    Args:
        step: the step.
        settings: `similarity`, `temperature`, `biased`, `l2` and `l2_bias`.
        compare: the loss of an event by its scores; a score of -inf must add nothing.
        corrected: weigh negatives against how often they are expected.
    """
    end = step.item_VD.shape[1] - int(settings.biased)
    cosine = settings.similarity == "cosine"
    user_UD, user_U = normalized(step.user_UD[:, :end], cosine)
    item_VD, item_V = normalized(step.item_VD[:, :end], cosine)
    bias_V = step.item_VD[:, end] if settings.biased else torch.zeros_like(step.item_VD[:, 0])
    user_BD = user_UD.index_select(0, step.user_B)
    positive_BD = item_VD.index_select(0, step.positive_B)
    score_B = torch.linalg.vecdot(user_BD, positive_BD) + bias_V[step.positive_B]
    share_B = step.weight_B / step.size * threshold_weights(step, settings, score_B)
    negatives = _Negatives.of(step, item_VD, bias_V, settings.temperature, corrected=corrected)
    batch = _Batch(user_BD, score_B / settings.temperature, share_B)
    sums = _over_blocks(batch, negatives, positive_columns(step, negatives.row_N), compare)

    slope_B1 = (sums.slope_B / settings.temperature)[:, None]
    gradient_UD, gradient_VD = torch.zeros_like(step.user_UD), torch.zeros_like(step.item_VD)
    slope_BD = sums.slope_BD.addcmul_(positive_BD, slope_B1)
    gradient_UD[:, :end].index_add_(0, step.user_B, slope_BD)
    gradient_VD[:, :end].index_add_(0, step.positive_B, user_BD * slope_B1)
    gradient_VD[:, :end].index_add_(0, negatives.row_N, sums.slope_ND)
    if settings.biased:
        gradient_VD[:, end].index_add_(0, step.positive_B, slope_B1[:, 0])
        gradient_VD[:, end].index_add_(0, negatives.row_N, sums.slope_N)
    backward_normalized(gradient_UD[:, :end], user_UD, user_U)
    backward_normalized(gradient_VD[:, :end], item_VD, item_V)
    loss = (sums.loss_B.double() * share_B).sum()
    penalty = add_l2(step, settings, gradient_UD, gradient_VD)
    return LossResult(loss + penalty, gradient_UD, gradient_VD)


@dataclass(frozen=True)
class _Negatives:
    """Distinct negatives, divided by the temperature; scores are `user @ vector' + bias_N`."""

    row_N: Tensor
    vector_ND: Tensor
    bias_N: Tensor
    weight_N: Tensor
    temperature: float

    @staticmethod
    def of(
        step: LossInput, item_VD: Tensor, bias_V: Tensor, temperature: float, *, corrected: bool
    ) -> _Negatives:
        row_N, index_K, count_N = torch.unique(
            step.negative_K, return_inverse=True, return_counts=True
        )
        weight_N = count_N.to(item_VD) / max(1, len(step.negative_K))
        if corrected:
            weight_K = (-step.log_expected_K).to(item_VD).softmax(0)
            weight_N = torch.zeros_like(weight_N).index_add_(0, index_K, weight_K)
        vector_ND = item_VD.index_select(0, row_N) / temperature
        return _Negatives(row_N, vector_ND, bias_V[row_N] / temperature, weight_N, temperature)


@dataclass(frozen=True)
class _Batch:
    """Events: their users' vectors, their positives' scores, and their shares of the mean."""

    user_BD: Tensor
    positive_B: Tensor
    share_B: Tensor


@dataclass(frozen=True)
class _Sums:
    """Results of the pass over all blocks; a slope is a derivative of the batch's loss.

    Each event's loss and its slope by the positive's score (B), and the slopes by the users'
    vectors through the negatives' scores (BD), the negatives' vectors (ND) and biases (N).
    """

    loss_B: Tensor
    slope_B: Tensor
    slope_BD: Tensor
    slope_ND: Tensor
    slope_N: Tensor


def _over_blocks(batch: _Batch, negatives: _Negatives, hit_B: Tensor, compare: Compare) -> _Sums:
    sums = _Sums(
        torch.empty_like(batch.positive_B),
        torch.empty_like(batch.positive_B),
        torch.empty_like(batch.user_BD),
        torch.zeros_like(negatives.vector_ND),
        torch.zeros_like(negatives.bias_N),
    )
    rows = block_rows(len(negatives.row_N))
    for start in range(0, len(batch.user_BD), rows):
        part = slice(start, start + rows)
        user_RD, share_R, hit_R = batch.user_BD[part], batch.share_B[part], hit_B[part]
        score_RN = torch.addmm(negatives.bias_N, user_RD, negatives.vector_ND.T)
        event_H = torch.nonzero(hit_R >= 0).squeeze(1)
        score_RN[event_H, hit_R[event_H]] = -torch.inf
        sums.loss_B[part], slope_R = compare(score_RN, batch.positive_B[part], negatives.weight_N)
        sums.slope_B[part] = slope_R * share_R
        slope_RN = score_RN.mul_(share_R[:, None])
        torch.mm(slope_RN, negatives.vector_ND, out=sums.slope_BD[part])
        sums.slope_ND.addmm_(slope_RN.T, user_RD)
        sums.slope_N.add_(slope_RN.sum(0))
    sums.slope_ND.div_(negatives.temperature)
    sums.slope_N.div_(negatives.temperature)
    return sums
