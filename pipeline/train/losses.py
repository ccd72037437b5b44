"""Losses: functions of the distinct rows of a step that return a loss and its gradients.

Legend: B events here, U distinct users, V distinct items, K negatives, D columns (of a
biased objective the last one is the bias).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["LOSSES", "LossSettings", "Objective", "Step", "StepLoss"]


@dataclass(frozen=True)
class LossSettings:
    """What a loss takes from the config.

    `biased`: the last column of a row is its bias; `mean`: train mean of the ratings.
    """

    biased: bool = False
    similarity: str = "dot"
    temperature: float = 1.0
    l2: float = 0.0
    mean: float = 0.0


@dataclass(frozen=True)
class Step:
    """One worker's part of a global step.

    `user_B`, `positive_B`, `negative_K` point into `user_UD` and `item_VD`. `weight_B` is how
    much an event counts, `target_B` the rating. `log_expected_K` is subtracted from the
    negatives' logits. `size` is the number of events of the whole global batch.
    """

    user_UD: Tensor
    item_VD: Tensor
    user_B: Tensor
    positive_B: Tensor
    negative_K: Tensor
    log_expected_K: Tensor
    weight_B: Tensor
    target_B: Tensor
    size: int


@dataclass(frozen=True)
class StepLoss:
    """This worker's share of the global batch's mean loss, and its gradients."""

    loss: Tensor
    user_UD: Tensor
    item_VD: Tensor


@dataclass(frozen=True)
class Objective:
    """A loss and what training must know of it.

    `biased`: it cannot do without biases; `negatives`: it ranks against them. `metrics` can
    choose the best epoch, the first by default; `rising` says whether more is better.
    """

    loss: Callable[[Step, LossSettings], StepLoss]
    biased: bool
    negatives: bool
    metrics: tuple[str, ...]
    rising: bool


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
    user_UD, user_U = _scaled(step.user_UD[:, :end], cosine)
    item_VD, item_V = _scaled(step.item_VD[:, :end], cosine)
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
    _unscale(pushed_UD[:, :end], user_UD, user_U)
    _unscale(pushed_VD[:, :end], item_VD, item_V)
    loss = (loss_B.double() * share_B).sum()
    decay = _decay(step, share_B * settings.l2, pushed_UD, pushed_VD) if settings.l2 else 0.0
    return StepLoss(loss + decay, pushed_UD, pushed_VD)


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
    decay = _decay(step, share_B * settings.l2, pushed_UD, pushed_VD) if settings.l2 else 0.0
    return StepLoss(loss + decay, pushed_UD, pushed_VD)


def _scaled(rows_ND: Tensor, cosine: bool) -> tuple[Tensor, Tensor | None]:
    """Rows of length one and what they were multiplied by; the zero row stays zero."""
    if not cosine:
        return rows_ND, None
    scale_N1 = torch.rsqrt(rows_ND.square().sum(1, keepdim=True) + 1e-12)
    return rows_ND * scale_N1, scale_N1


def _unscale(pushed_ND: Tensor, scaled_ND: Tensor, scale_N1: Tensor | None) -> None:
    """Turn gradients by scaled rows into gradients by the rows themselves, in place."""
    if scale_N1 is not None:
        along_N1 = (pushed_ND * scaled_ND).sum(1, keepdim=True)
        pushed_ND.sub_(along_N1 * scaled_ND).mul_(scale_N1)


def _decay(step: Step, share_B: Tensor, pushed_UD: Tensor, pushed_VD: Tensor) -> Tensor:
    """L2 on each event's user and positive row: adds its gradients, returns its loss."""
    loss = torch.zeros((), dtype=torch.float64, device=share_B.device)
    for rows_ND, index_B, pushed_ND in (
        (step.user_UD, step.user_B, pushed_UD),
        (step.item_VD, step.positive_B, pushed_VD),
    ):
        share_N = share_B.new_zeros(len(rows_ND)).index_add_(0, index_B, share_B)
        pushed_ND.add_(2 * share_N[:, None] * rows_ND)
        loss = loss + (rows_ND.double().square().sum(1) * share_N).sum()
    return loss


LOSSES: dict[str, Objective] = {
    "softmax": Objective(
        sampled_softmax,
        biased=False,
        negatives=True,
        metrics=("ndcg@10", "recall@10", "hit_rate@10", "mrr@10"),
        rising=True,
    ),
    "rating": Objective(
        rating, biased=True, negatives=False, metrics=("rmse", "mae"), rising=False
    ),
}
