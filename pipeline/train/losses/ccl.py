"""Cosine contrastive loss.

Legend: R events of a block, N distinct negatives.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from embedmill.pipeline.train.losses.contrastive import contrastive
from embedmill.pipeline.train.losses.loss import LossInput, LossResult, LossSettings

__all__ = ["ccl"]


def ccl(step: LossInput, settings: LossSettings) -> LossResult:
    """(1 - cosine with the positive) + w mean(max(0, cosine with a negative - m)).

    Mao et al., CIKM 2021 (SimpleX, arXiv 2109.12613), equation 1, with w =
    `settings.negative_weight`, m = `settings.margin` and the mean over the step's shared
    negatives. A negative that is the event's own item adds nothing. There is no temperature
    and no bias.
    """

    def compare(score_RN: Tensor, positive_R: Tensor, weight_N: Tensor) -> tuple[Tensor, Tensor]:
        weight_N = weight_N * settings.negative_weight
        over_RN = score_RN.sub_(settings.margin).clamp_(min=0)
        loss_R = over_RN @ weight_N + (1 - positive_R)
        over_RN.sign_().mul_(weight_N)  # derivatives by the scores; 0 at the margin itself
        return loss_R, torch.full_like(positive_R, -1.0)

    return contrastive(step, replace(settings, similarity="cosine", temperature=1.0), compare)
