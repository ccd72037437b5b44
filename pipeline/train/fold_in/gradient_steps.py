"""Fold-in of objectives that are trained by gradients: steps on a row's own loss.

A row begins where training would be expected to bring it from the mean of the other side's vectors
of its events (`start_map`). Each step takes the gradient of
its loss over all its events against the same negatives, rows of the other side or means of them
(`loss_negatives`), with a rate that falls as in Adagrad; with cosine, on the unit sphere.

Legend: U rows, R rows of a batch, N events of its longest row, K negatives, D coordinates.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from embedmill.pipeline.config import TrainConfig
from embedmill.pipeline.train.fold_in.closed_forms import means
from embedmill.pipeline.train.fold_in.known_events import KnownEvents, PaddedRows, padded_rows
from embedmill.pipeline.train.fold_in.loss_negatives import Negatives
from embedmill.pipeline.train.losses.psl import ACTIVATIONS, activation_slopes

if TYPE_CHECKING:
    from embedmill.pipeline.train.fold_in.fold_in import FoldIn

__all__ = ["bpr", "ccl", "on_sphere", "softmax"]

_STEPS = 4
_RATE = 0.05  # length of the first step, as a share of the vector's


# slopes(positive_RN, negative_RK, part, negatives): derivatives of each row's loss by the scores of
# its events [R, N] (0 for padding) and by those of the negatives [R, K].
Slopes = Callable[[Tensor, Tensor, PaddedRows, Negatives], tuple[Tensor, Tensor]]


def softmax(fold_in: FoldIn, events: KnownEvents, rows: int) -> tuple[Tensor, None]:
    """Sampled softmax, BSL or PSL: see `pipeline.train.losses.softmax.sampled_softmax`.

    The sum over the negatives of softmax and BSL is one over all rows, by means of clusters.
    The weights of SL@K, which need thresholds of trained users, are left out: events count alike.
    """
    if fold_in.config.loss == "psl":
        halved = _psl_slopes(fold_in.config)
        return _descend(fold_in, events, rows, fold_in.sampled, halved, 2.0), None
    ratio = fold_in.config.temperature_ratio if fold_in.config.loss == "bsl" else None

    def slopes(
        positive_RN: Tensor, negative_RK: Tensor, part: PaddedRows, negatives: Negatives
    ) -> tuple[Tensor, Tensor]:
        logit_RK = negative_RK + negatives.log_weight_K
        total_R1 = logit_RK.logsumexp(1, keepdim=True)
        share_RN = part.weight_RN
        if ratio is None:
            share_RN = share_RN * torch.sigmoid(total_R1 - positive_RN)
        negative_R1 = share_RN.sum(1, keepdim=True) * (ratio or 1.0)
        return -share_RN, (logit_RK - total_R1).exp_() * negative_R1

    temperature = fold_in.config.temperature
    return _descend(fold_in, events, rows, fold_in.clusters, slopes, temperature), None


def bpr(fold_in: FoldIn, events: KnownEvents, rows: int) -> tuple[Tensor, None]:
    """Bayesian personalised ranking: see `pipeline.train.losses.bpr.bpr`."""

    def differentiate(difference_RK: Tensor, weight_K: Tensor) -> None:
        difference_RK.sigmoid_().mul_(weight_K)

    slopes, temperature = _pair_slopes(differentiate), fold_in.config.temperature
    return _descend(fold_in, events, rows, fold_in.sampled, slopes, temperature), None


def _psl_slopes(config: TrainConfig) -> Slopes:
    """See `pipeline.train.losses.psl.psl`; scores are halved cosines."""
    assert config.activation is not None
    activate, power = ACTIVATIONS[config.activation], 1 / config.temperature

    def differentiate(difference_RK: Tensor, weight_K: Tensor) -> None:
        activation_slopes(difference_RK, weight_K, activate, power)

    return _pair_slopes(differentiate)


def _pair_slopes(differentiate: Callable[[Tensor, Tensor], None]) -> Slopes:
    """The slopes of a loss of differences: of negatives' scores and an event's, summed over events.

    Args:
        differentiate: overwrites the differences of one event of each row, [R, K], with the
            derivatives of its loss by them; it gets the weights of the negatives, [K], too.
    """

    def slopes(
        positive_RN: Tensor, negative_RK: Tensor, part: PaddedRows, negatives: Negatives
    ) -> tuple[Tensor, Tensor]:
        weight_K = negatives.log_weight_K.softmax(0)
        slope_RN, slope_RK = torch.zeros_like(positive_RN), torch.zeros_like(negative_RK)
        for at in range(positive_RN.shape[1]):
            share_RK = negative_RK - positive_RN[:, at, None]
            differentiate(share_RK, weight_K)
            share_RK.mul_(part.weight_RN[:, at, None])
            slope_RN[:, at] = -share_RK.sum(1)
            slope_RK += share_RK
        return slope_RN, slope_RK

    return slopes


def ccl(fold_in: FoldIn, events: KnownEvents, rows: int) -> tuple[Tensor, None]:
    """Cosine contrastive loss: see `pipeline.train.losses.ccl.ccl`."""
    settings = fold_in.config.ccl

    def slopes(
        positive_RN: Tensor, negative_RK: Tensor, part: PaddedRows, negatives: Negatives
    ) -> tuple[Tensor, Tensor]:
        weight_K = negatives.log_weight_K.softmax(0) * settings.negative_weight
        over_RK = (negative_RK > settings.margin).float() * weight_K
        return -part.weight_RN, over_RK * part.weight_RN.sum(1, keepdim=True)

    return _descend(fold_in, events, rows, fold_in.sampled, slopes, 1.0), None


def _descend(
    fold_in: FoldIn,
    events: KnownEvents,
    rows: int,
    negatives: Negatives,
    slopes: Slopes,
    temperature: float,
) -> Tensor:
    """Rows after all steps, float32 [U, D]; zero without events.

    Args:
        fold_in: its table and settings.
        events: the events.
        rows: number of rows.
        negatives: that the loss compares events with.
        slopes: of the objective's loss.
        temperature: scores are divided by it.
    """
    weight_M = fold_in.sample_weights(events)
    known = KnownEvents(events.own_M, events.other_M, weight_M)
    vector_UD, _ = means(fold_in, events, rows)
    if fold_in.start_DD is not None:
        if on_sphere(fold_in):
            vector_UD = functional.normalize(vector_UD, eps=1e-30)
        vector_UD = vector_UD @ fold_in.start_DD
    biased, spherical = fold_in.biased, on_sphere(fold_in)

    def take(other: object) -> Tensor:
        return fold_in.with_bias(other) if biased else fold_in.take(other)  # type: ignore[arg-type]

    for part in padded_rows(known, take, fold_in.dim + int(biased)):
        bias_RN = part.other_RND[:, :, -1] if biased else torch.zeros_like(part.weight_RN)
        other_RND = part.other_RND[:, :, : fold_in.dim]
        row_RD = vector_UD[part.row_R]
        squares_R1 = torch.zeros((len(row_RD), 1))
        for _ in range(_STEPS):
            if spherical:
                row_RD = functional.normalize(row_RD)
            positive_RN = (torch.einsum("rnd,rd->rn", other_RND, row_RD) + bias_RN) / temperature
            negative_RK = torch.addmm(negatives.bias_K, row_RD, negatives.vector_KD.T) / temperature
            slope_RN, slope_RK = slopes(positive_RN, negative_RK, part, negatives)
            gradient_RD = torch.einsum("rn,rnd->rd", slope_RN, other_RND)
            gradient_RD.addmm_(slope_RK, negatives.vector_KD)
            row_RD = _stepped(row_RD, gradient_RD, squares_R1, spherical=spherical)
        vector_UD[part.row_R] = row_RD
    return vector_UD


def _stepped(row_RD: Tensor, gradient_RD: Tensor, squares_R1: Tensor, *, spherical: bool) -> Tensor:
    """One row-wise Adagrad step (Duchi et al. 2011), relative to the rows' lengths."""
    length_R1 = row_RD.norm(dim=1, keepdim=True)
    if spherical:
        along_R1 = (gradient_RD * row_RD).sum(1, keepdim=True)
        gradient_RD = gradient_RD - along_R1 * row_RD
    squares_R1 += gradient_RD.square().sum(1, keepdim=True)
    rate_R1 = _RATE * length_R1 / squares_R1.sqrt().clamp(min=1e-30)
    return torch.addcmul(row_RD, gradient_RD, rate_R1, value=-1)


def on_sphere(fold_in: FoldIn) -> bool:
    """Whether rows were trained by their direction alone."""
    return fold_in.spec.objective == "ccl" or fold_in.config.similarity == "cosine"
