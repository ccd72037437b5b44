"""What an index must keep, and how sure one can be that it does."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedmill.pipeline.config import IndexConfig
from embedmill.pipeline.index import cost

__all__ = ["AIM", "Interval", "Promise", "interval_of", "margin"]

# What is aimed at where no recall is promised: more costs much and shows little.
AIM = 0.99
# Of the normal distribution at .95: the chance that the recall is truly below `low` is 5 %.
_Z = 1.6448536269514722
# So many standard errors between what tuning finds and verification demands: nine of ten
# first verifications pass.
_SURE = 1.2815515655446004


@dataclass(frozen=True)
class Promise:
    """Least recall@10, most bytes, most milliseconds of a query on one thread; 0: not asked."""

    recall: float = 0.0
    bytes: int = 0
    milliseconds: float = 0.0

    @staticmethod
    def of(config: IndexConfig) -> Promise:
        """As configured; `auto` keeps a recall of 0.99 where nothing is promised."""
        recall, size, milliseconds = config.recall_at_10, config.max_bytes, config.max_latency_ms
        if recall is None and size is None and milliseconds is None:
            recall = AIM
        return Promise(recall or 0.0, size or 0, milliseconds or 0.0)

    @property
    def aim(self) -> float:
        """Recall beyond which only time counts."""
        return self.recall or AIM

    @property
    def ceiling(self) -> float:
        """Microseconds that a search may be counted at; infinity where none are promised."""
        return 1000 * self.milliseconds - cost.CALL if self.milliseconds else math.inf

    def __str__(self) -> str:
        asked = (
            (self.recall, f"recall@10 {self.recall:g}"),
            (self.bytes, f"{self.bytes:,} bytes"),
            (self.milliseconds, f"{self.milliseconds:g} ms a query"),
        )
        return ", ".join(said for value, said in asked if value)

    def as_json(self) -> dict[str, Any]:
        """What is stored, by the keys of the config; null where nothing was asked."""
        return {
            "recall_at_10": self.recall or None,
            "max_bytes": self.bytes or None,
            "max_latency_ms": self.milliseconds or None,
        }


@dataclass(frozen=True)
class Interval:
    """Mean recall of some queries, and the bounds of its one-sided 95 % intervals."""

    mean: float
    low: float
    high: float
    queries: int

    def as_json(self) -> dict[str, Any]:
        """What is stored."""
        return {**asdict(self), "confidence": 0.95, "method": "wilson, effective sample size"}


def interval_of(recall_B: NDArray[np.float64], k: int) -> Interval:
    """How far the mean recall of more queries like these may lie from theirs.

    Answers of one query stand and fall together, so they are no independent trials: the score
    interval of Wilson (JASA 1927) is taken at the effective sample size p (1 - p) n / s^2, as
    Korn and Graubard do for clustered samples (Survey Methodology 1998), at most n k.

    Args:
        recall_B: of each query, 0 to 1.
        k: answers asked of each.
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


def margin(recall_B: NDArray[np.float64], verified: int) -> float:
    """What tuning must exceed the promise by, so that verification most likely confirms it.

    Args:
        recall_B: of each query of tuning, near the promise.
        verified: queries of verification.
    """
    spread = float(recall_B.std(ddof=1)) if len(recall_B) > 1 else 0.0
    of_tuning, of_verifying = (spread / math.sqrt(max(1, n)) for n in (len(recall_B), verified))
    return _Z * of_verifying + _SURE * math.hypot(of_tuning, of_verifying)
