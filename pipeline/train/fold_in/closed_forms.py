"""Fold-in of objectives that have a row's vector in closed form, and means.

Legend: U rows, M events, R rows of a batch, N events of its longest row, D coordinates.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from embedmill.pipeline.train.als.solve import Basis
from embedmill.pipeline.train.fold_in.known_events import (
    KnownEvents,
    PaddedRows,
    merged_pairs,
    padded_rows,
)

if TYPE_CHECKING:
    from embedmill.pipeline.train.fold_in.fold_in import FoldIn

__all__ = ["least_squares", "means", "projected", "ratings", "weighted_sums"]


def least_squares(fold_in: FoldIn, events: KnownEvents, rows: int) -> tuple[Tensor, None]:
    """The minimum of a row's loss in iALS: see `pipeline.train.als.solve.solve`."""
    ials, others = fold_in.ials, fold_in.others.count
    basis = Basis.of(fold_in.gram, ials.unobserved_weight, 0)
    pairs = merged_pairs(events, fold_in.sample_weights(events), others)
    vector_UD = torch.zeros((rows, fold_in.dim))

    def rotated(other: NDArray[np.int64]) -> Tensor:
        return fold_in.take(other) @ basis.rotation_DD

    for part in padded_rows(pairs, rotated, fold_in.dim):
        frequency_R = part.count_R.double() + ials.unobserved_weight * others
        l2_R1 = (ials.regularization * frequency_R**ials.regularization_power).float()[:, None]
        solved_RD = _solved(part, basis.eigenvalue_D + l2_R1)
        vector_UD[part.row_R] = solved_RD @ basis.rotation_DD.T
    return vector_UD, None


def _solved(part: PaddedRows, diagonal_RD: Tensor) -> Tensor:
    """Solutions of (diagonal + sum c h h') x = sum c h over the pairs of each row, [R, D].

    With B the diagonal, Y the vectors and C the confidences of a row's pairs, x is
    B^-1 Y (C^-1 + Y'B^-1 Y)^-1 1 (Woodbury): as many unknowns as the row has pairs.
    """
    present_RN, other_RND = part.present, part.other_RND
    if present_RN.shape[1] >= diagonal_RD.shape[1]:
        weighted_RND = other_RND * part.weight_RN[:, :, None]
        system_RDD = weighted_RND.mT @ other_RND
        torch.diagonal(system_RDD, dim1=1, dim2=2).add_(diagonal_RD)
        factor_RDD = torch.linalg.cholesky(system_RDD)
        return torch.cholesky_solve(weighted_RND.sum(1)[:, :, None], factor_RDD)[:, :, 0]
    own_RND = torch.where(present_RN[:, :, None], other_RND, 0.0)
    system_RNN = (own_RND / diagonal_RD[:, None]) @ own_RND.mT
    inverse_RN = torch.where(present_RN, 1 / part.weight_RN.clamp(min=1e-30), 1.0)
    torch.diagonal(system_RNN, dim1=1, dim2=2).add_(inverse_RN)
    factor_RNN = torch.linalg.cholesky(system_RNN)
    share_RN1 = torch.cholesky_solve(torch.ones_like(inverse_RN)[:, :, None], factor_RNN)
    return (own_RND.mT @ share_RN1)[:, :, 0] / diagonal_RD


def projected(fold_in: FoldIn, events: KnownEvents, rows: int) -> tuple[Tensor, None]:
    """Rows of the spectral objective, where users have A V f and items e^q V f, A = d^-a R e^-b.

    A user's vector is the sum of the vectors of its items, each times w e^-(b + q), times d^-a. An
    item's is e^q times the sum of its users' vectors, each times w d^-a e^-b, times the inverse of
    S^2: the product with A' of A V f is V S^2 f. S^2 follows from the eigenvalues m of the users'
    Gramian f^2 S^2 with f^2 = S^2 / (S^2 + r): it is (m + (m^2 + 4 m r)^1/2) / 2.
    """
    settings, weight_M = fold_in.config.spectral, fold_in.sample_weights(events)
    users = fold_in.side == "users"
    own_power, other_power = settings.user_power, settings.item_power + settings.popularity_power
    if not users:
        own_power = settings.item_power - settings.popularity_power
        other_power = settings.user_power
    degree_M = fold_in.fitted.degree_N[events.other_M]
    scale_M = np.where(degree_M > 0, np.maximum(degree_M, 1e-300) ** -other_power, 0)
    sum_UD = weighted_sums(fold_in, events, weight_M * scale_M, rows).double()
    degree_U = np.bincount(events.own_M, weight_M, rows)
    scale_U = np.where(degree_U > 0, np.maximum(degree_U, 1e-300) ** -own_power, 0)
    if not users:
        value_D, axis_DD = torch.linalg.eigh(fold_in.gram)
        value_D = value_D.clamp(min=1e-12 * float(value_D.amax().clamp(min=1e-300)))
        penalty = settings.ridge * fold_in.fitted.mean_square
        square_D = (value_D + (value_D.square() + 4 * value_D * penalty).sqrt()) / 2
        sum_UD = sum_UD @ (axis_DD / square_D) @ axis_DD.T
    return (sum_UD * torch.from_numpy(scale_U)[:, None]).float(), None


def ratings(fold_in: FoldIn, events: KnownEvents, rows: int) -> tuple[Tensor, Tensor]:
    """The minimum of a row's squared errors and L2, its bias among the unknowns.

    In the units of the exported vectors a row of n events minimises
    sum (r - mean - other's bias - own bias - inner product)^2 + s l2 n^p |x|^2 + l2_bias n^p b^2,
    s the standard deviation of the ratings, in whose units the training's loss is.
    """
    config, deviation, dim = fold_in.config, fold_in.fitted.deviation, fold_in.dim
    biases = fold_in.others.column("bias").astype(np.float64)
    residual_M = np.asarray(events.weight_M, np.float64) - fold_in.spec.mean
    residual_M -= biases[events.other_M]
    known = KnownEvents(events.own_M, events.other_M, residual_M)
    l2_bias = config.l2 if config.l2_bias is None else config.l2_bias
    penalty_D = torch.full((dim + 1,), deviation * config.l2, dtype=torch.float64)
    penalty_D[-1] = l2_bias
    solved_UD = torch.zeros((rows, dim + 1))
    for part in padded_rows(known, fold_in.take, dim):
        one_RN1 = part.present[:, :, None].float()
        factor_RND = torch.cat((part.other_RND * one_RN1, one_RN1), 2)
        system_RDD = (factor_RND.mT @ factor_RND).double()
        scale_R = part.count_R.double() ** config.l2_power
        diagonal = torch.diagonal(system_RDD, dim1=1, dim2=2)
        diagonal += (scale_R[:, None] * penalty_D).clamp(min=1e-9)
        target_RD = torch.einsum("rnd,rn->rd", factor_RND, part.weight_RN).double()
        solved_UD[part.row_R] = torch.linalg.solve(system_RDD, target_RD).float()
    return solved_UD[:, :dim].contiguous(), solved_UD[:, dim].contiguous()


def means(fold_in: FoldIn, events: KnownEvents, rows: int) -> tuple[Tensor, None]:
    """Means of the other side's vectors."""
    sum_UD = weighted_sums(fold_in, events, np.ones(len(events.own_M)), rows)
    count_U = torch.from_numpy(np.bincount(events.own_M, minlength=rows)).clamp(min=1)
    return sum_UD / count_U[:, None], None


def weighted_sums(
    fold_in: FoldIn, events: KnownEvents, weight_M: NDArray[np.float64], rows: int
) -> Tensor:
    """Weighted sums of the other side's vectors of each row's events, float32 [U, D].

    Args:
        fold_in: its table.
        events: the events.
        weight_M: float64 [M].
        rows: number of rows.
    """
    order_M = np.argsort(events.own_M, kind="stable")
    distinct, index_M = np.unique(events.other_M[order_M], return_inverse=True)
    if not len(distinct):
        return torch.zeros((rows, fold_in.dim))
    start_U = np.searchsorted(events.own_M[order_M], np.arange(rows))
    return functional.embedding_bag(
        torch.from_numpy(index_M),
        fold_in.take(distinct).contiguous(),
        torch.from_numpy(start_U),
        mode="sum",
        per_sample_weights=torch.from_numpy(weight_M[order_M]).float(),
    )
