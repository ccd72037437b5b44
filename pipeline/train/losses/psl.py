"""Pairwise softmax loss (PSL).

Legend: R events of a block, N distinct negatives.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from embedmill.pipeline.train.losses.contrastive import contrastive
from embedmill.pipeline.train.losses.loss import LossInput, LossResult, LossSettings
from embedmill.pipeline.train.losses.softmax_losses import BITS

__all__ = ["ACTIVATIONS", "activation_slopes", "psl"]


def psl(step: LossInput, settings: LossSettings) -> LossResult:
    """log(mean over the negatives of s(d) ** (1 / temperature)), d half the cosines' difference.

    Yang et al., NeurIPS 2024 (arXiv 2411.00163): d, the negative's cosine less the
    positive's, halved, is between -1 and 1, and softmax loss has e ** d in place of s(d), a
    surrogate activation of `ACTIVATIONS` that is nearer to the step from 0 to 1 at d = 0. The mean
    is weighted against how often negatives are expected; one that is the positive adds 0 to it. An
    event without other negatives adds nothing. There are no biases.

    Args:
        step: the step.
        settings: `activation`, and a `temperature` below 1.
    """
    assert settings.activation is not None
    activate, power = ACTIVATIONS[settings.activation], 1 / settings.temperature

    def compare(score_RN: Tensor, positive_R: Tensor, weight_N: Tensor) -> tuple[Tensor, Tensor]:
        difference_RN = score_RN.sub_(positive_R[:, None])
        loss_R = activation_slopes(difference_RN, weight_N, activate, power)
        return loss_R, -score_RN.sum(1)

    halved = replace(settings, similarity="cosine", biased=False, temperature=2.0)
    return contrastive(step, halved, compare, corrected=True)


def activation_slopes(
    difference_RN: Tensor, weight_N: Tensor, activate: Activation, power: float
) -> Tensor:
    """The losses of events by the differences, which are overwritten with the derivatives by them.

    Args:
        difference_RN: differences, -inf where a negative is the positive.
        weight_N: of the negatives; they sum to 1.
        activate: an activation.
        power: that it is raised to, greater than 1.

    Returns:
        losses [R]; 0 where there is no other negative.
    """
    slope_RN = activate(difference_RN)
    # Powers of 2 take a third of the time of powers; the greatest is 1, so that none overflows.
    log_RN = difference_RN.log2()
    peak_R = log_RN.amax(1).clamp_(min=torch.finfo(log_RN.dtype).min)
    part_RN = log_RN.sub_(peak_R[:, None]).mul_(power - 1).exp2_()
    sum_R = difference_RN.mul_(part_RN) @ weight_N
    scale_R = (power / sum_R).masked_fill_(sum_R == 0, 0.0)
    if slope_RN is not None:
        part_RN.mul_(slope_RN)
    torch.mul(part_RN, weight_N, out=difference_RN).mul_(scale_R[:, None])
    loss_R = (sum_R.log2() + (power - 1) * peak_R) / BITS
    return loss_R.masked_fill_(sum_R == 0, 0.0)


# activation(difference) overwrites the differences with its values, 0 for -inf, and returns its
# derivatives; None: 1 wherever the value is above 0.
Activation = Callable[[Tensor], Tensor | None]


def _relu(difference_RN: Tensor) -> None:
    """1 + d."""
    difference_RN.add_(1).clamp_(min=0)


def _tanh(difference_RN: Tensor) -> Tensor:
    """1 + tanh(d)."""
    slope_RN = 1 - difference_RN.tanh_().square()
    difference_RN.add_(1)
    return slope_RN


def _atan(difference_RN: Tensor) -> Tensor:
    """1 + arctan(d)."""
    slope_RN = 1 / (1 + difference_RN.square())
    difference_RN.atan_().add_(1).clamp_(min=0)
    return slope_RN


ACTIVATIONS: dict[str, Activation] = {"relu": _relu, "tanh": _tanh, "atan": _atan}
