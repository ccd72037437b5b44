"""Sorting by a key that is nearly distinct."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["order_by"]


def order_by(first: npt.NDArray[np.int64], *rest: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """Positions in order of (first, *rest).

    One fast sort by `first`; the slow one by all keys only sees rows that tie in it.
    """
    order = np.argsort(first)
    ordered = first[order]
    same = ordered[1:] == ordered[:-1]
    if same.any():
        tied = np.append(same, False) | np.append(False, same)
        rows = order[tied]
        order[tied] = rows[np.lexsort([key[rows] for key in (*reversed(rest), first)])]
    return order
