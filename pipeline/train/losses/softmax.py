"""Sampled softmax and BSL, forward and backward in blocks of the batch that stay in cache.

Legend: B events of this worker, R events of a block, H of these that have their positive among
the negatives, U distinct users, V distinct items, K negatives, N distinct ones of these, D
columns (of an objective with biases the last one is the bias).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from embedmill.pipeline.train.losses.batch_blocks import block_rows, positive_columns
from embedmill.pipeline.train.losses.loss import LossInput, LossResult, LossSettings
from embedmill.pipeline.train.losses.psl import psl
from embedmill.pipeline.train.losses.row_gradients import (
    add_l2,
    backward_normalized,
    multiply,
    normalized,
    threshold_weights,
)
from embedmill.pipeline.train.losses.softmax_losses import (
    BITS,
    BilateralSoftmaxLoss,
    SoftmaxLoss,
    SumLoss,
)

__all__ = ["sampled_softmax"]

_RANGE = 100.0  # powers of two up to this one are safely in the range of a float32


def sampled_softmax(step: LossInput, settings: LossSettings) -> LossResult:
    """Cross-entropy of the positive against itself and the negatives (Jean et al. 2015).

    A negative that is the positive is left out. With cosine similarity, vectors are scaled to
    length one first. Where items have a bias it is added to the similarity, before the
    temperature; the user's is not used. L2 is added on the user's and the positive's row of
    each event. Gradients are computed in closed form: with softmax P, the derivative by a
    logit is P - 1 for the positive and P for a negative.

    With `settings.temperature_ratio` the loss is BSL (Wu et al., ICDE 2024, see
    `BilateralSoftmaxLoss`): the positive is left out of the sum, whose logarithm has that
    factor; with softmax P over the negatives alone, the derivatives are -1 and ratio * P. With
    the dot product, or with biases and a ratio other than 1, it has no lower bound; the config
    refuses both.

    With `settings.activation` the loss is PSL: see `losses.psl.psl`. With
    `settings.threshold_temperature` events are weighed as in SL@K (KDD 2025): see
    `row_gradients.threshold_weights`.

    With `settings.rounded`, the factors of the matrix products are rounded to bfloat16; sums
    stay in float32.

    Logits are computed for a block of events at a time, as in fused linear cross-entropy (Hsu
    et al. 2024, Liger kernel): no tensor of size B x K is kept, and a block stays in cache.

    Args:
        step: the step.
        settings: `similarity`, `temperature`, `temperature_ratio`, `activation`,
            `threshold_temperature`, `biased`, `rounded`, `l2` and `l2_bias`.
    """
    if settings.activation is not None:
        return psl(step, settings)
    end = step.item_VD.shape[1] - int(settings.biased)
    cosine = settings.similarity == "cosine"
    user_UD, user_U = normalized(step.user_UD[:, :end], cosine)
    item_VD, item_V = normalized(step.item_VD[:, :end], cosine)
    negatives = _Negatives.of(step, settings, item_VD)
    user_BD = user_UD.index_select(0, step.user_B)
    positive_BD = item_VD.index_select(0, step.positive_B)
    logit_B = torch.linalg.vecdot(user_BD, positive_BD)
    if settings.biased:
        logit_B += step.item_VD[:, end].index_select(0, step.positive_B)
    share_B = step.weight_B / step.size * threshold_weights(step, settings, logit_B)
    batch = _Batch(
        user_BD,
        logit_B * (BITS / settings.temperature) - negatives.greatest,
        share_B / settings.temperature,
    )
    hits = _AccidentalHits.of(step, negatives.row_N)
    sums = _over_blocks(batch, negatives, hits, _sum_loss(settings, negatives))

    slope_B1 = sums.slope_B[:, None]
    gradient_UD, gradient_VD = torch.zeros_like(step.user_UD), torch.zeros_like(step.item_VD)
    gradient_VD[:, :end].index_add_(0, negatives.row_N, sums.slope_DN.T)
    gradient_VD[:, :end].index_add_(0, step.positive_B, user_BD * slope_B1)
    slope_BD = sums.slope_BD.addcmul_(positive_BD, slope_B1)
    gradient_UD[:, :end].index_add_(0, step.user_B, slope_BD)
    if settings.biased:
        gradient_VD[:, end].index_add_(0, negatives.row_N, sums.slope_N)
        gradient_VD[:, end].index_add_(0, step.positive_B, sums.slope_B)
    backward_normalized(gradient_UD[:, :end], user_UD, user_U)
    backward_normalized(gradient_VD[:, :end], item_VD, item_V)
    loss = (sums.loss_B.double() * share_B).sum()
    penalty = add_l2(step, settings, gradient_UD, gradient_VD)
    return LossResult(loss + penalty, gradient_UD, gradient_VD)


def _sum_loss(settings: LossSettings, negatives: _Negatives) -> SumLoss:
    if settings.temperature_ratio is None:
        return SoftmaxLoss()
    log_weight = negatives.weight_N.sum().log2()
    return BilateralSoftmaxLoss(settings.temperature_ratio, log_weight, negatives.greatest)


@dataclass(frozen=True)
class _Negatives:
    """Distinct negatives; one adds `weight_N * 2 ** (user @ logit_DN + bias_N)` to an event's sum.

    Its weight is 1 over how often it is expected, divided by the greatest of these, which is
    2 ** `greatest`; positives must be divided by that too. Weighting the sums of a block and
    the rows of `weighted_ND` is cheaper than adding an offset to every logit. `bias_N` is None
    where items have no bias. `bounded`: no sum can overflow, so no maximum needs to be
    subtracted from the logits.
    """

    row_N: Tensor
    weight_N: Tensor
    weighted_ND: Tensor
    logit_DN: Tensor
    bias_N: Tensor | None
    greatest: Tensor
    bounded: bool

    @staticmethod
    def of(step: LossInput, settings: LossSettings, item_VD: Tensor) -> _Negatives:
        row_N, index_K = torch.unique(step.negative_K, return_inverse=True)
        vector_ND = item_VD.index_select(0, row_N)
        scale = BITS / settings.temperature
        offset_N = _log_sums(-step.log_expected_K, index_K, len(row_N)) * BITS
        greatest = offset_N.max() if len(row_N) else offset_N.new_zeros(())
        weight_N = (offset_N - greatest).exp2_()
        bias_N = None
        if settings.biased:
            bias_N = step.item_VD[:, -1].index_select(0, row_N) * scale
        bounded = settings.similarity == "cosine" and bias_N is None
        if bounded:
            bounded = scale + abs(float(greatest)) + math.log2(1 + len(row_N)) < _RANGE
        logit_DN = (vector_ND * scale).T.contiguous()
        weighted_ND = vector_ND.mul_(weight_N[:, None])
        if settings.rounded:
            weighted_ND, logit_DN = weighted_ND.bfloat16(), logit_DN.bfloat16()
        return _Negatives(row_N, weight_N, weighted_ND, logit_DN, bias_N, greatest, bounded)


def _log_sums(values_K: Tensor, index_K: Tensor, size: int) -> Tensor:
    """Log-sum-exp of the values of each index: a negative that was drawn twice counts twice."""
    if len(index_K) == size:
        return torch.empty_like(values_K).index_copy_(0, index_K, values_K)
    max_N = values_K.new_full((size,), -torch.inf)
    max_N.scatter_reduce_(0, index_K, values_K, "amax")
    ratio_K = (values_K - max_N.index_select(0, index_K)).exp()
    return values_K.new_zeros(size).index_add_(0, index_K, ratio_K).log() + max_N


@dataclass(frozen=True)
class _Batch:
    """Events: their users' vectors, their positives' logits, and their shares of the mean.

    Logits are in bits, less `_Negatives.greatest`; shares are divided by the temperature.
    """

    user_BD: Tensor
    positive_B: Tensor
    share_B: Tensor


@dataclass(frozen=True)
class _Sums:
    """Results of the pass over all blocks; a slope is a derivative of the batch's loss.

    Each event's loss in nats and its slope by the positive's logit (B), and the slopes by the
    users' vectors through the negatives' logits (BD), the negatives' vectors (DN) and biases (N).
    """

    loss_B: Tensor
    slope_B: Tensor
    slope_BD: Tensor
    slope_DN: Tensor
    slope_N: Tensor


def _over_blocks(
    batch: _Batch, negatives: _Negatives, hits: _AccidentalHits, sum_loss: SumLoss
) -> _Sums:
    user_BD, positive_B = batch.user_BD, batch.positive_B
    logits = user_BD.new_empty(hits.rows * len(negatives.row_N))
    scaled_RD = user_BD.new_empty((hits.rows, user_BD.shape[1]))
    sum_B, scale_B, shift_B = torch.zeros_like(positive_B).repeat(3, 1)
    slope_BD, slope_DN = torch.empty_like(user_BD), user_BD.new_zeros(negatives.logit_DN.shape)
    slope_N = torch.zeros_like(negatives.weight_N)
    for start, hit_H in zip(range(0, len(user_BD), hits.rows), hits.blocks, strict=True):
        part = slice(start, start + hits.rows)
        user_RD, positive_R, sum_R, shift_R = (
            t[part] for t in (user_BD, positive_B, sum_B, shift_B)
        )
        logit_RN = logits[: len(user_RD) * len(negatives.row_N)].view(len(user_RD), -1)
        multiply(user_RD, negatives.logit_DN, logit_RN, addend=negatives.bias_N)
        logit_RN.view(-1).index_fill_(0, hit_H, -torch.inf)
        if not negatives.bounded:
            sum_loss.shift(logit_RN, positive_R, shift_R)
            logit_RN.sub_(shift_R[:, None])
        torch.mv(logit_RN.exp2_(), negatives.weight_N, out=sum_R)
        scale_R = sum_loss.scale(
            sum_R, positive_R - shift_R, batch.share_B[part], out=scale_B[part]
        )
        multiply(logit_RN, negatives.weighted_ND, slope_BD[part])
        part_RD = torch.mul(user_RD, scale_R[:, None], out=scaled_RD[: len(user_RD)])
        multiply(part_RD.T.to(negatives.logit_DN.dtype), logit_RN, slope_DN, addend=slope_DN)
        if negatives.bias_N is not None:
            slope_N.addmv_(logit_RN.T, scale_R)
    slope_DN.mul_(negatives.weight_N)
    slope_N.mul_(negatives.weight_N)
    loss_B = sum_loss.loss(sum_B.log2() + shift_B, positive_B)
    slope_B = sum_loss.slope(sum_B, scale_B, batch.share_B)
    return _Sums(loss_B, slope_B, slope_BD.mul_(scale_B[:, None]), slope_DN, slope_N)


@dataclass(frozen=True)
class _AccidentalHits:
    """Blocks of `rows` events; in each, flat indices of logits whose negative is the positive."""

    rows: int
    blocks: tuple[Tensor, ...]

    @staticmethod
    def of(step: LossInput, row_N: Tensor) -> _AccidentalHits:
        """The blocks of a step; a positive is at most once among the distinct negatives."""
        events, columns = len(step.positive_B), max(1, len(row_N))
        rows, column_B = block_rows(columns), positive_columns(step, row_N)
        event_H = torch.nonzero(column_B >= 0).squeeze(1)
        flat_H = event_H % rows * columns + column_B.index_select(0, event_H)
        sizes = torch.bincount(event_H // rows, minlength=-(-events // rows)).tolist()
        return _AccidentalHits(rows, torch.split(flat_H, sizes))
