"""Vectors made as wide as codes need them.

Legend: N items, D coordinates, E padded ones.
"""

from __future__ import annotations

import numpy as np

from pipeline.index.contract import Floats

__all__ = ["padded", "padded_dim"]


def padded(vector_ND: Floats, multiple: int) -> Floats:
    """Zeros on the right up to a multiple, which change no inner product; float32 [N, E]."""
    missing = padded_dim(vector_ND.shape[1], multiple) - vector_ND.shape[1]
    return np.pad(vector_ND, ((0, 0), (0, missing))) if missing else vector_ND


def padded_dim(dim: int, multiple: int) -> int:
    """Coordinates of what `padded` gives."""
    return -(-dim // multiple) * multiple
