"""Least squares for many rows at once: blocks of dimensions, conjugate gradients in each.

Legend: R rows of a batch, N pairs of the longest of them (others are padded with weight 0),
V rows of the other side at hand, D columns, d columns of a block.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Basis", "Batch", "solve"]

_FEW = 4  # pairs; below, a batched product takes several times as long as a sum


@dataclass(frozen=True)
class Basis:
    """Coordinates in which each diagonal block of the other side's Gramian is diagonal.

    `turn_DD` takes rows there and its transpose back. There the Gramian, times the weight of
    an unobserved pair, is `value_D` on the diagonal and `rest_DD` beside the blocks, which is
    None where one block has all columns.
    """

    blocks: tuple[slice, ...]
    turn_DD: Tensor
    value_D: Tensor
    rest_DD: Tensor | None

    @staticmethod
    def of(gram_DD: Tensor, unobserved: float, width: int) -> Basis:
        """The basis of a Gramian.

        Args:
            gram_DD: float64, the sum of the outer products of the other side's rows.
            unobserved: weight of an unobserved pair.
            width: columns of a block; 0 for all.
        """
        columns, width = len(gram_DD), width or len(gram_DD)
        blocks = tuple(slice(a, min(a + width, columns)) for a in range(0, columns, width))
        turn_DD, values = torch.zeros_like(gram_DD), []
        for block in blocks:
            value_d, turn_DD[block, block] = torch.linalg.eigh(gram_DD[block, block])
            values.append(value_d.clamp(min=0) * unobserved)
        rest_DD = None
        if len(blocks) > 1:
            rest_DD = turn_DD.T @ gram_DD @ turn_DD * unobserved
            for block in blocks:
                rest_DD[block, block] = 0
            rest_DD = rest_DD.float()
        return Basis(blocks, turn_DD.float(), torch.cat(values).float(), rest_DD)

    @staticmethod
    def nothing(gram_DD: Tensor) -> Basis:
        """A basis of values that are not finite, as the Gramian's are: nothing can be solved."""
        wrong_DD = torch.full_like(gram_DD, torch.nan).float()
        return Basis((slice(0, len(gram_DD)),), wrong_DD, wrong_DD[0], None)


@dataclass(frozen=True)
class Batch:
    """Rows to solve for, all in the coordinates of a `Basis`.

    `row_RD` are the rows as they were, `decay_R` their regularisation; `near_RND` the other
    side's rows of their pairs, `weight_RN` the pairs' confidence.
    """

    row_RD: Tensor
    decay_R: Tensor
    near_RND: Tensor
    weight_RN: Tensor


def solve(batch: Batch, basis: Basis, steps: int) -> tuple[Tensor, Tensor]:
    """Rows that lower their weighted squared error, the other side's rows held fixed.

    A row w with pairs of confidence c and vectors h has the loss
    `sum c (1 - w.h)^2 + a w'Gw + decay |w|^2`, with G the Gramian of the other side and a the
    weight of an unobserved pair (Rendle et al. 2021, arXiv 2110.14037, section 3). Blocks of
    columns are solved for one after the other, given the scores so far (iALS++, arXiv
    2110.14044, section 3), each by conjugate gradients from where the row was (Takacs et al.,
    RecSys 2011). As `aG + decay` is diagonal here, it costs no product and is the
    preconditioner; what is left of the row's matrix has the rank of its pairs, so that as many
    steps and one more solve a block exactly.

    Args:
        batch: the rows.
        basis: their coordinates.
        steps: of conjugate gradients, in each block.

    Returns:
        rows [R, D], and each row's loss at them [R].
    """
    row_RD = batch.row_RD.clone()
    score_RN = _scores(batch.near_RND, row_RD)
    for block in basis.blocks:
        near_RNd, decay_R1 = batch.near_RND[:, :, block], batch.decay_R[:, None]
        diagonal_Rd = basis.value_D[block] + decay_R1
        slope_Rd = _pulled(near_RNd, batch.weight_RN * (1 - score_RN))
        slope_Rd.addcmul_(diagonal_Rd, row_RD[:, block], value=-1)
        if basis.rest_DD is not None:
            slope_Rd.addmm_(row_RD, basis.rest_DD[:, block], alpha=-1)
        system = _System(near_RNd, batch.weight_RN, diagonal_Rd)
        row_RD[:, block] += _conjugate(system, slope_Rd, score_RN, steps)
    own_RD = (basis.value_D + batch.decay_R[:, None]) * row_RD
    if basis.rest_DD is not None:
        own_RD.addmm_(row_RD, basis.rest_DD)
    error_R = (batch.weight_RN * (1 - score_RN).square()).sum(1)
    return row_RD, error_R + (own_RD * row_RD).sum(1)


@dataclass(frozen=True)
class _System:
    """The matrix `diagonal + sum c h h'` of each row, of pairs of confidence c and rows h."""

    near_RNd: Tensor
    weight_RN: Tensor
    diagonal_Rd: Tensor


def _conjugate(system: _System, slope_Rd: Tensor, score_RN: Tensor, steps: int) -> Tensor:
    """What the matrix takes to the slope, by preconditioned conjugate gradients from zero.

    `score_RN` follows: it gains each pair's inner product with the change.
    """
    change_Rd, left_Rd = torch.zeros_like(slope_Rd), slope_Rd
    along_Rd = left_Rd / system.diagonal_Rd
    size_R1 = (left_Rd * along_Rd).sum(1, keepdim=True)
    for step in range(steps):
        along_RN = _scores(system.near_RNd, along_Rd)
        image_Rd = _pulled(system.near_RNd, system.weight_RN * along_RN)
        image_Rd.addcmul_(system.diagonal_Rd, along_Rd)
        length_R1 = _ratio(size_R1, (along_Rd * image_Rd).sum(1, keepdim=True))
        change_Rd.addcmul_(length_R1, along_Rd)
        score_RN.addcmul_(length_R1, along_RN)
        if step + 1 == steps:
            break
        left_Rd = torch.addcmul(left_Rd, length_R1, image_Rd, value=-1)
        scaled_Rd, before_R1 = left_Rd / system.diagonal_Rd, size_R1
        size_R1 = (left_Rd * scaled_Rd).sum(1, keepdim=True)
        along_Rd = torch.addcmul(scaled_Rd, _ratio(size_R1, before_R1), along_Rd)
    return change_Rd


def _ratio(over_R1: Tensor, under_R1: Tensor) -> Tensor:
    """A quotient, 0 where nothing is left to divide by: that row is solved."""
    return torch.where(under_R1 > 0, over_R1 / under_R1, 0.0)


def _scores(near_RNd: Tensor, row_Rd: Tensor) -> Tensor:
    """Inner product of each row with those of its pairs, [R, N]."""
    if near_RNd.shape[1] < _FEW:
        return (near_RNd * row_Rd[:, None]).sum(2)
    return torch.bmm(row_Rd[:, None], near_RNd.mT)[:, 0]


def _pulled(near_RNd: Tensor, share_RN: Tensor) -> Tensor:
    """Sum of the rows of each row's pairs, times their shares, [R, d]."""
    if near_RNd.shape[1] < _FEW:
        return (near_RNd * share_RN[:, :, None]).sum(1)
    return torch.bmm(share_RN[:, None], near_RNd)[:, 0]
