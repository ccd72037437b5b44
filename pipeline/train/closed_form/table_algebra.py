"""Products of all rows of a table with small matrices, and what makes columns orthonormal.

Legend: L rows of this worker, N rows of a block, D columns.
"""

from __future__ import annotations

import torch
from torch import Tensor

from embedmill.pipeline.train.tables.embedding import ShardedEmbedding

__all__ = ["gram", "multiply", "orthonormal_factor"]

_ROWS = 1 << 14
# Floor of the squared singular values, as a share of their mean: with fewer rows than columns,
# some directions hold nothing but rounding errors.
_FLOOR = 1e-5


def gram(table: ShardedEmbedding, dim: int) -> Tensor:
    """Inner products of the first `dim` columns over all workers, float64 [D, D]; a collective.

    Products of a block are in float32, sums over blocks in float64.
    """
    sum_DD = torch.zeros((dim, dim), dtype=torch.float64, device=table.group.device)
    for block_ND in torch.split(table.weight.detach()[:, :dim], _ROWS):
        sum_DD += block_ND.T @ block_ND
    return table.group.sum(sum_DD)


def multiply(table: ShardedEmbedding, matrix_DD: Tensor) -> None:
    """Multiply the first D columns of all rows by a matrix, in place."""
    matrix_DD = matrix_DD.float()
    for block_ND in torch.split(table.weight.detach()[:, : len(matrix_DD)], _ROWS):
        block_ND.copy_(block_ND @ matrix_DD)


def orthonormal_factor(gram_DD: Tensor) -> Tensor | None:
    """The matrix that columns are multiplied by to become orthonormal, float64 [D, D].

    By a Cholesky factor of their Gramian, so that no axes are chosen: the columns depend
    continuously on what they were, and any number of workers comes to the same. Columns that
    depend on others become shorter than 1.

    Args:
        gram_DD: of the columns.

    Returns:
        None where a value is not finite.
    """
    if not bool(gram_DD.isfinite().all()):  # the same at every worker: it is their sum
        return None
    # Any positive floor will do where the columns are zero.
    floor = max(_FLOOR * float(gram_DD.diagonal().mean()), 1e-30)
    eye_DD = torch.eye(len(gram_DD), dtype=gram_DD.dtype, device=gram_DD.device)
    upper_DD = torch.linalg.cholesky(gram_DD + floor * eye_DD, upper=True)
    factor_DD: Tensor = torch.linalg.solve_triangular(upper_DD, eye_DD, upper=True)
    return factor_DD
