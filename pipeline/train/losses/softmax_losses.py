"""What softmax loss and BSL make of an event's positive and the sum over its negatives.

Legend: B events of this worker, R events of a block, N distinct negatives. Logits are in bits,
divided by the temperature; a sum is of weight * 2 ** (logit - shift) over an event's negatives.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["BITS", "BilateralSoftmaxLoss", "SoftmaxLoss", "SumLoss"]

BITS = 1 / math.log(2)  # bits per nat; 2 ** x takes a third of the time of e ** x


class SumLoss(Protocol):
    """A loss of an event by its positive's logit and the sum over its negatives."""

    def shift(self, logit_RN: Tensor, positive_R: Tensor, out: Tensor) -> None:
        """Set `out` to what is subtracted from the logits so that no sum overflows.

        Args:
            logit_RN: of the negatives; -inf where a negative is the positive.
            positive_R: logits of the positives.
            out: [R].
        """

    def scale(self, sum_R: Tensor, positive_R: Tensor, share_R: Tensor, out: Tensor) -> Tensor:
        """What a negative's part of the sum is multiplied by to get its slope; `out`.

        Args:
            sum_R: sums over the negatives.
            positive_R: logits of the positives, less the shift; overwritten.
            share_R: shares of the batch's mean, divided by the temperature.
            out: [R].
        """

    def loss(self, log_sum_B: Tensor, positive_B: Tensor) -> Tensor:
        """Losses in nats.

        Args:
            log_sum_B: log2 of the sums, plus the shift; -inf for an event without negatives.
            positive_B: logits of the positives.
        """

    def slope(self, sum_B: Tensor, scale_B: Tensor, share_B: Tensor) -> Tensor:
        """Slopes by the positives' logits; arguments as of `scale`, and its result."""


class SoftmaxLoss:
    """log(1 + sum / 2 ** positive): the positive is a part of the sum of the softmax."""

    def shift(self, logit_RN: Tensor, positive_R: Tensor, out: Tensor) -> None:
        """See `SumLoss`."""
        torch.maximum(logit_RN.amax(1), positive_R, out=out)

    def scale(self, sum_R: Tensor, positive_R: Tensor, share_R: Tensor, out: Tensor) -> Tensor:
        """See `SumLoss`."""
        return torch.div(share_R, sum_R + positive_R.exp2_(), out=out)

    def loss(self, log_sum_B: Tensor, positive_B: Tensor) -> Tensor:
        """See `SumLoss`."""
        # log(1 + exp(x)) keeps digits that a difference of two logarithms would lose.
        return functional.softplus((log_sum_B - positive_B) / BITS)

    def slope(self, sum_B: Tensor, scale_B: Tensor, share_B: Tensor) -> Tensor:
        """See `SumLoss`."""
        return -sum_B * scale_B


@dataclass(frozen=True)
class BilateralSoftmaxLoss:
    """BSL (Wu et al., ICDE 2024): -positive + ratio * log2(mean of 2 ** negative), in bits.

    The positive is no part of the mean. The mean is weighted by the negatives' weights; one
    that is the positive adds 0 to it. An event all of whose negatives are its positive has no
    mean: its loss and slopes are 0, as those of softmax loss are.

    Args:
        ratio: factor of the negatives' term; the paper has a temperature for the positives and
            one for the negatives, and this stands for the quotient of the two.
        log_weight: log2 of the sum of the negatives' weights.
        offset: was subtracted from the positives' logits.
    """

    ratio: float
    log_weight: Tensor
    offset: Tensor

    def shift(self, logit_RN: Tensor, positive_R: Tensor, out: Tensor) -> None:
        """See `SumLoss`. The positive, which may be far greater, must not make the sum 0."""
        torch.clamp(logit_RN.amax(1), min=torch.finfo(out.dtype).min, out=out)

    def scale(self, sum_R: Tensor, positive_R: Tensor, share_R: Tensor, out: Tensor) -> Tensor:
        """See `SumLoss`."""
        return torch.div(share_R * self.ratio, sum_R, out=out).masked_fill_(sum_R == 0, 0.0)

    def loss(self, log_sum_B: Tensor, positive_B: Tensor) -> Tensor:
        """See `SumLoss`."""
        loss_B = self.ratio * (log_sum_B - self.log_weight) - (positive_B + self.offset)
        return loss_B.masked_fill_(log_sum_B == -torch.inf, 0.0) / BITS

    def slope(self, sum_B: Tensor, scale_B: Tensor, share_B: Tensor) -> Tensor:
        """See `SumLoss`."""
        return -share_B * (sum_B > 0)
