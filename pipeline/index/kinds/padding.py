"""Zeros appended to vectors where codes need a multiple of some number of coordinates.

Legend: N items, D coordinates, E coordinates after padding.
"""

from __future__ import annotations

import numpy as np

from embedmill.pipeline.index.searchable import Floats

__all__ = ["padded", "padded_dim"]


def padded(vector_ND: Floats, multiple: int) -> Floats:
    """Append zeros up to a multiple, which changes no inner product; float32 [N, E]."""
    count, dim = vector_ND.shape
    if not dim % multiple:
        return vector_ND
    # np.pad takes several times as long for a single query.
    vector_NE = np.zeros((count, padded_dim(dim, multiple)), np.float32)
    vector_NE[:, :dim] = vector_ND
    return vector_NE


def padded_dim(dim: int, multiple: int) -> int:
    """E: coordinates of what `padded` gives."""
    return -(-dim // multiple) * multiple
