"""Vectors made as wide as codes need them.

Legend: N items, D coordinates, E padded ones.
"""

from __future__ import annotations

import numpy as np

from embedmill.pipeline.index.contract import Floats

__all__ = ["padded", "padded_dim"]


def padded(vector_ND: Floats, multiple: int) -> Floats:
    """Zeros on the right up to a multiple, which change no inner product; float32 [N, E]."""
    count, dim = vector_ND.shape
    if not dim % multiple:
        return vector_ND
    vector_NE = np.zeros((count, padded_dim(dim, multiple)), np.float32)  # np.pad is slow for one
    vector_NE[:, :dim] = vector_ND
    return vector_NE


def padded_dim(dim: int, multiple: int) -> int:
    """Coordinates of what `padded` gives."""
    return -(-dim // multiple) * multiple
