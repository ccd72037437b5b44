"""Least squares for many rows at once: blocks of dimensions, conjugate gradients in each.

Legend: R rows of a batch, N pairs of the row with most (others are padded with weight 0),
D columns, d columns of a block.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Basis", "Batch", "solve"]

_FEW_PAIRS = 4  # below, a batched product takes several times as long as a sum


@dataclass(frozen=True)
class Basis:
    """Coordinates in which each diagonal block of the other side's Gramian is diagonal.

    Rows are multiplied by `rotation_DD` to get there, and by its transpose to get back. In
    these coordinates the Gramian, times the weight of an unobserved pair, has `eigenvalue_D`
    on its diagonal, zeros elsewhere in the blocks, and `off_block_DD` outside them; the last is
    None where one block has all columns.
    """

    blocks: tuple[slice, ...]
    rotation_DD: Tensor
    eigenvalue_D: Tensor
    off_block_DD: Tensor | None

    @staticmethod
    def of(gram_DD: Tensor, unobserved: float, width: int) -> Basis:
        """The basis of a Gramian.

        Args:
            gram_DD: float64, the sum of the outer products of the other side's rows.
            unobserved: weight of an unobserved pair.
            width: columns of a block; 0: one block of all columns.
        """
        columns, width = len(gram_DD), width or len(gram_DD)
        blocks = tuple(slice(a, min(a + width, columns)) for a in range(0, columns, width))
        rotation_DD, values = torch.zeros_like(gram_DD), []
        for block in blocks:
            eigenvalue_d, rotation_DD[block, block] = torch.linalg.eigh(gram_DD[block, block])
            values.append(eigenvalue_d.clamp(min=0) * unobserved)
        off_block_DD = None
        if len(blocks) > 1:
            off_block_DD = rotation_DD.T @ gram_DD @ rotation_DD * unobserved
            for block in blocks:
                off_block_DD[block, block] = 0
            off_block_DD = off_block_DD.float()
        return Basis(blocks, rotation_DD.float(), torch.cat(values).float(), off_block_DD)

    @staticmethod
    def not_finite(gram_DD: Tensor) -> Basis:
        """A basis of NaN for a Gramian that is not finite: every row solved in it is NaN."""
        nan_DD = torch.full_like(gram_DD, torch.nan).float()
        return Basis((slice(0, len(gram_DD)),), nan_DD, nan_DD[0], None)


@dataclass(frozen=True)
class Batch:
    """Rows to solve for, all in the coordinates of a `Basis`.

    Args:
        row_RD: the rows before they are solved.
        l2_R: their regularisation.
        other_RND: the other side's rows of their pairs.
        weight_RN: confidence of the pairs.
    """

    row_RD: Tensor
    l2_R: Tensor
    other_RND: Tensor
    weight_RN: Tensor


def solve(batch: Batch, basis: Basis, steps: int) -> tuple[Tensor, Tensor]:
    """Minimize the rows' weighted squared errors, with the other side's rows fixed.

    A row w with pairs of confidence c and vectors h has the loss
    `sum c (1 - w.h)^2 + a w'Gw + l2 |w|^2`, with G the Gramian of the other side and a the
    weight of an unobserved pair (Rendle et al. 2021, arXiv 2110.14037, section 3). Blocks of
    columns are solved for one after the other, given the scores so far (iALS++, arXiv
    2110.14044, section 3), each by conjugate gradients that start at the row's old value (Takacs et
    al., RecSys 2011). In these coordinates `aG + l2` is diagonal, so it needs no product and
    serves as the preconditioner. The rest of a row's matrix has the rank of its pairs: one step
    more than it has pairs solves a block exactly.

    Args:
        batch: the rows.
        basis: their coordinates.
        steps: of conjugate gradients, in each block.

    Returns:
        the new rows [R, D], and their losses [R].
    """
    row_RD = batch.row_RD.clone()
    score_RN = _scores(batch.other_RND, row_RD)
    for block in basis.blocks:
        other_RNd, l2_R1 = batch.other_RND[:, :, block], batch.l2_R[:, None]
        diagonal_Rd = basis.eigenvalue_D[block] + l2_R1
        slope_Rd = _weighted_sums(other_RNd, batch.weight_RN * (1 - score_RN))
        slope_Rd.addcmul_(diagonal_Rd, row_RD[:, block], value=-1)
        if basis.off_block_DD is not None:
            slope_Rd.addmm_(row_RD, basis.off_block_DD[:, block], alpha=-1)
        system = _System(other_RNd, batch.weight_RN, diagonal_Rd)
        row_RD[:, block] += _conjugate_gradients(system, slope_Rd, score_RN, steps)
    own_RD = (basis.eigenvalue_D + batch.l2_R[:, None]) * row_RD
    if basis.off_block_DD is not None:
        own_RD.addmm_(row_RD, basis.off_block_DD)
    error_R = (batch.weight_RN * (1 - score_RN).square()).sum(1)
    return row_RD, error_R + (own_RD * row_RD).sum(1)


@dataclass(frozen=True)
class _System:
    """The matrix `diagonal + sum c h h'` of each row, of pairs of confidence c and rows h."""

    other_RNd: Tensor
    weight_RN: Tensor
    diagonal_Rd: Tensor


def _conjugate_gradients(system: _System, slope_Rd: Tensor, score_RN: Tensor, steps: int) -> Tensor:
    """Solve matrix * change = slope by preconditioned conjugate gradients from zero.

    Each pair's inner product with the change is added to `score_RN`.
    """
    change_Rd, residual_Rd = torch.zeros_like(slope_Rd), slope_Rd
    direction_Rd = residual_Rd / system.diagonal_Rd
    norm_R1 = (residual_Rd * direction_Rd).sum(1, keepdim=True)
    for step in range(steps):
        direction_RN = _scores(system.other_RNd, direction_Rd)
        product_Rd = _weighted_sums(system.other_RNd, system.weight_RN * direction_RN)
        product_Rd.addcmul_(system.diagonal_Rd, direction_Rd)
        length_R1 = _safe_ratio(norm_R1, (direction_Rd * product_Rd).sum(1, keepdim=True))
        change_Rd.addcmul_(length_R1, direction_Rd)
        score_RN.addcmul_(length_R1, direction_RN)
        if step + 1 == steps:
            break
        residual_Rd = torch.addcmul(residual_Rd, length_R1, product_Rd, value=-1)
        scaled_Rd, old_norm_R1 = residual_Rd / system.diagonal_Rd, norm_R1
        norm_R1 = (residual_Rd * scaled_Rd).sum(1, keepdim=True)
        direction_Rd = torch.addcmul(scaled_Rd, _safe_ratio(norm_R1, old_norm_R1), direction_Rd)
    return change_Rd


def _safe_ratio(numerator_R1: Tensor, denominator_R1: Tensor) -> Tensor:
    """A quotient; 0 where the denominator is not positive: that row is solved already."""
    return torch.where(denominator_R1 > 0, numerator_R1 / denominator_R1, 0.0)


def _scores(other_RNd: Tensor, row_Rd: Tensor) -> Tensor:
    """Inner products of each row with the other side's rows of its pairs, [R, N]."""
    if other_RNd.shape[1] < _FEW_PAIRS:
        return (other_RNd * row_Rd[:, None]).sum(2)
    return torch.bmm(row_Rd[:, None], other_RNd.mT)[:, 0]


def _weighted_sums(other_RNd: Tensor, share_RN: Tensor) -> Tensor:
    """Sums of the other side's rows of each row's pairs, times `share_RN`; [R, d]."""
    if other_RNd.shape[1] < _FEW_PAIRS:
        return (other_RNd * share_RN[:, :, None]).sum(1)
    return torch.bmm(share_RN[:, None], other_RNd)[:, 0]
