"""Checks of vectors before an index is built over them."""

from __future__ import annotations

import numpy as np

from embedmill.pipeline.errors import InputError
from embedmill.pipeline.index.searchable import Floats

__all__ = ["check_vectors", "not_finite_error"]


def check_vectors(**vectors: Floats) -> None:
    """Check that there are items, and that all vectors are finite and of equal length.

    Args:
        **vectors: float32 [N, D] each; `items` by that name, others by what they are.

    Raises:
        InputError: names the vectors and the first bad row.
    """
    dim = vectors["items"].shape[1]
    for name, vector_ND in vectors.items():
        # Sums instead of a mask as large as the vectors: a sum is finite if all summands are.
        bad_N = ~np.isfinite(vector_ND.sum(axis=1, dtype=np.float64))
        if vector_ND.shape[1] != dim:
            raise InputError(f"{name} have {vector_ND.shape[1]} coordinates, the items {dim}")
        if bad_N.any():
            raise not_finite_error(name, int(bad_N.sum()), len(bad_N), int(bad_N.argmax()))
    if not len(vectors["items"]):
        raise InputError("there are no items to index")


def not_finite_error(name: str, bad: int, count: int, first_row: int) -> InputError:
    """The error for `bad` of `count` vectors that are not finite.

    Args:
        name: what the vectors are.
        bad: how many are not finite.
        count: how many there are.
        first_row: row of the first bad one.
    """
    return InputError(
        f"{bad:,} of {count:,} vectors ({name}) hold NaN or infinity, the first in row {first_row}",
        todo="No index can rank by them; train anew with a lower learning rate",
    )
