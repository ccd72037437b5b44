"""Confidence intervals of means over users, and the paired test of two runs.

Users are taken as drawn from all users there could be, so an interval is as wide for a sample of
the test users as for a test part that has no others.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["PairedDifference", "mean_interval", "paired_difference"]

_Z = 1.959963984540054  # of the normal distribution: 95 % lie within


def mean_interval(total: float, squares: float, count: int) -> tuple[float, float]:
    """The 95 % interval of a mean of many values, by the central limit theorem.

    Args:
        total: sum of the values.
        squares: sum of their squares.
        count: number of the values, at least two.
    """
    mean = total / count
    variance = max(0.0, squares / count - mean * mean) * count / (count - 1)
    half = _Z * math.sqrt(variance / count)
    return mean - half, mean + half


@dataclass(frozen=True)
class PairedDifference:
    """How much a metric of the same users differs between two runs.

    Attributes:
        users: in both.
        before: mean of the first run.
        after: mean of the second.
        low: lower end of the 95 % interval of after - before.
        high: its upper end.
        p_value: of the two-sided paired t-test, its distribution taken as normal.
        better: users whose value rose.
        worse: users whose value fell.
    """

    users: int
    before: float
    after: float
    low: float
    high: float
    p_value: float
    better: int
    worse: int


def paired_difference(
    before_U: NDArray[np.float64], after_U: NDArray[np.float64]
) -> PairedDifference:
    """The difference of the means of two runs over the same users, float64 [U] each, U > 1."""
    change_U = after_U - before_U
    users, total = len(change_U), float(change_U.sum())
    low, high = mean_interval(total, float(np.square(change_U).sum()), users)
    half = (high - low) / 2
    if half:
        p_value = math.erfc(abs(total / users) / (half / _Z) / math.sqrt(2))
    else:
        p_value = 0.0 if total else 1.0
    return PairedDifference(
        users,
        float(before_U.mean()),
        float(after_U.mean()),
        low,
        high,
        p_value,
        int((change_U > 0).sum()),
        int((change_U < 0).sum()),
    )
