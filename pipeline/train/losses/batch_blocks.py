"""Blocks of a batch that fit into the CPU cache, and negatives that are an event's own item.

Legend: B events of this worker, V distinct items, N distinct negatives.
"""

from __future__ import annotations

import torch
from torch import Tensor

from embedmill.pipeline.train.losses.loss import LossInput

__all__ = ["block_rows", "positive_columns"]

_SCORES = 1 << 18  # scores of a block: 1 MiB of float32
_MIN_ROWS = 64  # of a block; matrix products of fewer rows are slow


def block_rows(columns: int) -> int:
    """How many rows of `columns` scores make a block."""
    return max(_MIN_ROWS, _SCORES // max(1, columns))


def positive_columns(step: LossInput, row_N: Tensor) -> Tensor:
    """Which of the distinct negatives `row_N` is each event's positive; -1: none, int64 [B]."""
    column_V = torch.full_like(step.item_VD[:, 0], -1, dtype=torch.int64)
    column_V[row_N] = torch.arange(len(row_N), device=row_N.device)
    return column_V.index_select(0, step.positive_B)
