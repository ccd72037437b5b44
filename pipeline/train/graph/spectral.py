"""Initial vectors from the leading singular vectors of the graph of users and items.

What a long training finds first, a few products with a sparse matrix find in seconds. The
subspace is found by randomised subspace iteration (Halko, Martinsson and Tropp 2011, arXiv
0909.4061, algorithm 4.4) on the matrix whose entry is (d e)^-1/2 for a user of degree d and an
item of degree e, as in spectral collaborative filtering (GF-CF: Shen et al. 2021, arXiv
2108.07567). Both tables are worked on in place, without a copy of either.

Within the subspace no axes are chosen. Singular vectors of nearly equal values rotate into each
other with the last bit of a sum; powers of a matrix do not, so that any number of workers starts
with the same tables.

Legend: N rows of a block, D columns.
"""

from __future__ import annotations

import torch
from torch import Tensor

from embedmill.pipeline.train.graph.event_graph import EventGraph
from embedmill.pipeline.train.tables.embedding import ShardedEmbedding, draw_initial

__all__ = ["set_spectral"]

# Products with the matrix and its transpose; more made no difference after training.
_ROUNDS = 4
# Power of the singular values on either side: with 1/2, inner products approximate the matrix.
_POWER = 0.5
# Floor of the squared singular values, as a share of their mean: with fewer rows than columns,
# some directions hold nothing but rounding errors.
_FLOOR = 1e-5
_ROWS = 1 << 16


def set_spectral(graph: EventGraph, *, seed: int, scale: float) -> None:
    """Replace the normal initial vectors of both tables; a collective.

    With A the matrix, Q an orthonormal basis of the items' side, B = A Q and M = B'B, users
    get B M^(p-1)/2 and items Q M^p/2 with p = 1/2; rows are scaled to the expected length of
    normal ones. A row without events keeps its normal values.

    Args:
        graph: the graph, not scaled, and the tables.
        seed: the run's seed, with which the normal values were drawn.
        scale: standard deviation of the normal values.
    """
    graph = graph.scaled(0.5, 0.5)
    users, items, dim = graph.users, graph.items, graph.dim
    for _ in range(_ROUNDS):
        graph.set_users()
        graph.set_items()
        upper_DD = torch.linalg.cholesky(_gram(items, dim), upper=True)
        eye_DD = torch.eye(dim, dtype=upper_DD.dtype, device=upper_DD.device)
        _multiply(items, torch.linalg.solve_triangular(upper_DD, eye_DD, upper=True))
    graph.set_users()
    value_D, vector_DD = torch.linalg.eigh(_gram(users, dim))
    for table, power in ((users, (_POWER - 1) / 2), (items, _POWER / 2)):
        _multiply(table, (vector_DD * value_D**power) @ vector_DD.T)
    for name, table in (("users", users), ("items", items)):
        _rescale(table, name, dim, seed=seed, scale=scale)


def _gram(table: ShardedEmbedding, dim: int) -> Tensor:
    """The columns' Gramian over all workers plus the floor, float64 [D, D]; a collective."""
    sum_DD = torch.zeros((dim, dim), dtype=torch.float64, device=table.group.device)
    for block_ND in torch.split(table.weight.detach()[:, :dim], _ROWS):
        wide_ND = block_ND.double()
        sum_DD.addmm_(wide_ND.T, wide_ND)
    table.group.sum(sum_DD)
    # Any positive floor will do where the graph has no edges.
    floor = max(_FLOOR * float(sum_DD.diagonal().mean()), 1e-30)
    sum_DD.diagonal().add_(floor)
    return sum_DD


def _multiply(table: ShardedEmbedding, matrix_DD: Tensor) -> None:
    """Multiply all vectors by a matrix, in place."""
    for block_ND in torch.split(table.weight.detach()[:, : len(matrix_DD)], _ROWS):
        block_ND.copy_(block_ND.double() @ matrix_DD)


def _rescale(table: ShardedEmbedding, name: str, dim: int, *, seed: int, scale: float) -> None:
    """Scale vectors to the expected length of normal ones; zero vectors become normal ones."""
    for partition in table.layout.owned:
        rows_ND = table.weight.detach()[table.partition_slice(partition)]
        vectors_ND = rows_ND[:, :dim]
        length_N1 = vectors_ND.norm(dim=1, keepdim=True)
        empty_N = length_N1[:, 0] == 0
        vectors_ND.mul_(scale * dim**0.5 / length_N1.clamp(min=torch.finfo().tiny))
        if bool(empty_N.any()):
            normal_ND = torch.empty_like(rows_ND)
            draw_initial(normal_ND, name, partition, seed=seed, scale=scale)
            vectors_ND[empty_N] = normal_ND[empty_N, :dim]
