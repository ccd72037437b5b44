"""Sort orders by several keys of which the first ones are nearly distinct."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["order_by", "order_by_pair"]


def order_by(first: npt.NDArray[np.int64], *rest: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """Positions in order of (first, *rest), as `np.lexsort` gives them, [N].

    One fast sort by `first`; only rows that tie in it are sorted by all keys, which is slow.
    """
    order = np.argsort(first)
    ordered = first[order]
    same = ordered[1:] == ordered[:-1]
    if same.any():
        tied = np.append(same, False) | np.append(False, same)
        rows = order[tied]
        order[tied] = rows[np.lexsort([key[rows] for key in (*reversed(rest), first)])]
    return order


def order_by_pair(
    first: npt.NDArray[np.int64], second: npt.NDArray[np.int64], *rest: npt.NDArray[Any]
) -> npt.NDArray[np.int64]:
    """Positions in order of (first, second, *rest), of which the first two are nearly distinct.

    Both are packed into one number where their ranges fit into 63 bits: one sort instead of two.
    Row numbers of one partition are a fixed step apart; dividing by the step narrows their range.
    """
    if not len(first):
        return np.empty(0, np.int64)
    low, least = int(first.min()), int(second.min())
    span, offset = int(second.max()) - least + 1, first - low
    offset //= max(1, int(np.gcd.reduce(offset)))
    if (int(offset.max()) + 1) * span >= 1 << 63:
        return np.lexsort((*reversed(rest), second, first))
    return order_by(offset * span + (second - least), *rest)
