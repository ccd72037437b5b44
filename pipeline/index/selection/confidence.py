"""How sure a measured recall is: confidence intervals, and the margin that tuning adds.

Legend: B queries.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from embedmill.schemas.index import RecallInterval

__all__ = ["Interval", "recall_interval", "tuning_margin"]

# The 95 % quantile of the normal distribution: with a chance of 5 % the true recall is below
# `Interval.low`.
_Z = 1.6448536269514722
# The 90 % quantile: nine of ten first verifications confirm what tuning found.
_Z_CONFIRMED = 1.2815515655446004


@dataclass(frozen=True)
class Interval:
    """Mean recall over some queries, and the bounds of its two one-sided 95 % intervals."""

    mean: float
    low: float
    high: float
    queries: int

    def stored(self) -> RecallInterval:
        """As stored in the artifact."""
        method = "wilson, effective sample size"
        return RecallInterval(**asdict(self), confidence=0.95, method=method)


def recall_interval(recall_B: NDArray[np.float64], k: int) -> Interval:
    """A confidence interval of the mean recall over queries of the same distribution.

    The k answers to one query are correlated, so they are not k independent trials: the score
    interval of Wilson (JASA 1927) is taken at the effective sample size p (1 - p) n / s^2, at most
    n k, as Korn and Graubard do for clustered samples (Survey Methodology 1998).

    Args:
        recall_B: of each query, 0 to 1.
        k: answers to each.
    """
    n = len(recall_B)
    if not n:
        return Interval(1.0, 0.0, 1.0, 0)
    p = float(recall_B.mean())
    variance = float(recall_B.var(ddof=1)) if n > 1 else p * (1 - p)
    size = float(n * k) if variance <= 0 else min(n * k, p * (1 - p) * n / variance)
    size = max(size, 1.0)
    middle = (p + _Z**2 / (2 * size)) / (1 + _Z**2 / size)
    reach = _Z / (1 + _Z**2 / size) * math.sqrt(p * (1 - p) / size + _Z**2 / (4 * size**2))
    return Interval(p, max(0.0, middle - reach), min(1.0, middle + reach), n)


def tuning_margin(recall_B: NDArray[np.float64], verifying_queries: int) -> float:
    """How far tuning has to exceed the target recall for verification to confirm it most likely.

    Args:
        recall_B: of each tuning query, at an operating point near the target.
        verifying_queries: number of queries of the verification.
    """
    deviation = float(recall_B.std(ddof=1)) if len(recall_B) > 1 else 0.0
    of_tuning, of_verifying = (
        deviation / math.sqrt(max(1, n)) for n in (len(recall_B), verifying_queries)
    )
    return _Z * of_verifying + _Z_CONFIRMED * math.hypot(of_tuning, of_verifying)
