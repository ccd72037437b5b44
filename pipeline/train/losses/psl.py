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

__all__ = ["ACTIVATIONS", "activation_slopes", "psl"]


def psl(step: LossInput, settings: LossSettings) -> LossResult:
    """log(mean over the negatives of s(d) ** (1 / temperature)), d half the cosines' difference.

    Yang et al., NeurIPS 2024 (arXiv 2411.00163), section 3: d, the negative's cosine less the
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
        slope_RN, sum_R, peak_R = activation_slopes(
            score_RN.sub_(positive_R[:, None]), weight_N, activate, power
        )
        score_RN.copy_(slope_RN)
        loss_R = (sum_R.log() + power * peak_R.log()).masked_fill_(sum_R == 0, 0.0)
        return loss_R, -slope_RN.sum(1)

    halved = replace(settings, similarity="cosine", biased=False, temperature=2.0)
    return contrastive(step, halved, compare, corrected=True)


def activation_slopes(
    difference_RN: Tensor, weight_N: Tensor, activate: Activation, power: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Derivatives of the losses by the differences, and what the losses are made of.

    Args:
        difference_RN: differences, -inf where a negative is the positive; overwritten.
        weight_N: of the negatives.
        activate: an activation.
        power: that it is raised to, greater than 1.

    Returns:
        derivatives [R, N]; sums [R] of weight * (activation / greatest) ** power, 0 where there is
        no other negative; and the greatest activations [R].
    """
    value_RN, slope_RN = activate(difference_RN)
    peak_R = value_RN.amax(1).clamp_(min=torch.finfo(value_RN.dtype).tiny)
    value_RN.div_(peak_R[:, None])
    part_RN = value_RN.pow(power - 1)
    sum_R = value_RN.mul_(part_RN) @ weight_N
    scale_R = (power / (sum_R * peak_R)).masked_fill_(sum_R == 0, 0.0)
    if slope_RN is not None:
        part_RN.mul_(slope_RN)
    return part_RN.mul_(weight_N).mul_(scale_R[:, None]), sum_R, peak_R


# activation(difference) returns its values, 0 for -inf, and its derivatives; None: 1 wherever the
# value is above 0. It may overwrite the differences.
Activation = Callable[[Tensor], tuple[Tensor, Tensor | None]]


def _relu(difference_RN: Tensor) -> tuple[Tensor, None]:
    """1 + d."""
    return difference_RN.add_(1).clamp_(min=0), None


def _tanh(difference_RN: Tensor) -> tuple[Tensor, Tensor]:
    """1 + tanh(d)."""
    value_RN = difference_RN.tanh_()
    slope_RN = 1 - value_RN.square()
    return value_RN.add_(1), slope_RN


def _atan(difference_RN: Tensor) -> tuple[Tensor, Tensor]:
    """1 + arctan(d)."""
    slope_RN = 1 / (1 + difference_RN.square())
    return difference_RN.atan_().add_(1).clamp_(min=0), slope_RN


ACTIVATIONS: dict[str, Activation] = {"relu": _relu, "tanh": _tanh, "atan": _atan}
