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
    """What a loss takes from the config; `mean` is the train mean of the ratings."""

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

    `metrics` can choose the best epoch, the first by default; `rising` says whether more is
    better.
    """

    loss: Callable[[Step, LossSettings], StepLoss]
    biased: bool
    negatives: bool
    metrics: tuple[str, ...]
    rising: bool


def sampled_softmax(step: Step, settings: LossSettings) -> StepLoss:
    """Cross-entropy of the positive against itself and the negatives (Jean et al. 2015).

    A negative that is the positive is left out. With cosine similarity, vectors are scaled to
    length one first. L2 falls on the user's and the positive's row of each event.
    """
    user_UD = step.user_UD.detach().requires_grad_()
    item_VD = step.item_VD.detach().requires_grad_()
    if settings.similarity == "cosine":
        scaled_UD, scaled_VD = _scaled(user_UD), _scaled(item_VD)
    else:
        scaled_UD, scaled_VD = user_UD, item_VD
    rows_BD = scaled_UD[step.user_B]
    positive_B = (rows_BD * scaled_VD[step.positive_B]).sum(1) / settings.temperature
    negative_BK = rows_BD @ scaled_VD[step.negative_K].T / settings.temperature
    negative_BK = negative_BK - step.log_expected_K
    hit_BK = step.positive_B[:, None] == step.negative_K
    negative_BK = negative_BK.masked_fill(hit_BK, -torch.inf)
    total_B = torch.logsumexp(torch.cat([positive_B[:, None], negative_BK], 1), 1)
    loss_B = total_B - positive_B + settings.l2 * _squares(user_UD, item_VD, step)
    loss = (loss_B * step.weight_B).double().sum() / step.size
    return StepLoss(loss.detach(), *torch.autograd.grad(loss, (user_UD, item_VD)))


def rating(step: Step, settings: LossSettings) -> StepLoss:
    """Squared error of mean + user bias + item bias + inner product (Koren et al. 2009)."""
    user_UD = step.user_UD.detach().requires_grad_()
    item_VD = step.item_VD.detach().requires_grad_()
    user_BD, item_BD = user_UD[step.user_B], item_VD[step.positive_B]
    inner_B = (user_BD[:, :-1] * item_BD[:, :-1]).sum(1)
    error_B = settings.mean + user_BD[:, -1] + item_BD[:, -1] + inner_B - step.target_B
    # In double: the square of a large error leaves the range of a float.
    loss_B = error_B.double().square() + settings.l2 * _squares(user_UD, item_VD, step)
    loss = (loss_B * step.weight_B).sum() / step.size
    return StepLoss(loss.detach(), *torch.autograd.grad(loss, (user_UD, item_VD)))


def _scaled(rows_ND: Tensor) -> Tensor:
    """Rows of length one; the zero row stays zero, with a finite gradient."""
    return rows_ND * torch.rsqrt(rows_ND.square().sum(1, keepdim=True) + 1e-12)


def _squares(user_UD: Tensor, item_VD: Tensor, step: Step) -> Tensor:
    """Squared lengths of the user's and the positive's row of each event, [B]."""
    user_U = user_UD.double().square().sum(1)
    item_V = item_VD.double().square().sum(1)
    return functional.embedding(step.user_B, user_U[:, None]).squeeze(1) + functional.embedding(
        step.positive_B, item_V[:, None]
    ).squeeze(1)


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
