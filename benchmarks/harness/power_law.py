"""Rows drawn by a power law, as ids of real logs are: few of them have most of the events."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["POWER", "draw_rows"]

POWER = 0.6  # the r-th row has events in proportion to r ** -0.6


def draw_rows(
    count: int, size: int, draw: np.random.Generator, power: float = POWER
) -> NDArray[np.int64]:
    """`size` rows of `count`, int64, the r-th in proportion to r ** -power.

    By inversion of the continuous law: row = count * u ** (1 / (1 - power)), u uniform.

    Args:
        count: how many rows there are.
        size: how many are drawn.
        draw: where the random numbers come from.
        power: of the law, below 1.
    """
    share = draw.random(size) ** (1 / (1 - power))
    return np.minimum((count * share).astype(np.int64), count - 1)
