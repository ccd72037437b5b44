"""Blocks of a batch that stay in cache, and negatives that are an event's own item.

Legend: B events here, V distinct items, N distinct negatives.
"""

from __future__ import annotations

import torch
from torch import Tensor

from embedmill.pipeline.train.losses.contract import Step

__all__ = ["block_rows", "own_columns"]

_HELD = 1 << 18  # scores held at once: 1 MiB of float32
_LEAST = 64  # rows of a block, below which matrix products lose speed


def block_rows(columns: int) -> int:
    """How many rows of `columns` scores are worked on together."""
    return max(_LEAST, _HELD // max(1, columns))


def own_columns(step: Step, row_N: Tensor) -> Tensor:
    """Which of the distinct negatives `row_N` each event's positive is, -1 for none, int64 [B]."""
    column_V = torch.full_like(step.item_VD[:, 0], -1, dtype=torch.int64)
    column_V[row_N] = torch.arange(len(row_N), device=row_N.device)
    return column_V.index_select(0, step.positive_B)
