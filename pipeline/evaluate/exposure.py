"""How recommendations are spread over the items: coverage, Gini coefficient, novelty.

Legend: B users of a batch, K answers each, N items, M live ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["EXPOSURE_METRICS", "Answered", "Exposure", "gini"]

EXPOSURE_METRICS = ("coverage", "calibrated_coverage", "gini", "novelty")


@dataclass(frozen=True)
class Answered:
    """Rows of the items that were among answers, int64 [M], and how often, int64 [M]."""

    row_M: Tensor
    count_M: Tensor


class Exposure:
    """Counts how often each item is among the first k answers, batch after batch."""

    def __init__(
        self, ks: Sequence[int], count_N: NDArray[np.int64], live_N: NDArray[np.bool_]
    ) -> None:
        """Begin without answers.

        Args:
            ks: lengths of lists.
            count_N: events of each item that the model was fitted to.
            live_N: whether an item can be recommended.
        """
        self._live_N = torch.from_numpy(live_N)
        self._answered = {k: torch.zeros(len(count_N), dtype=torch.int64) for k in ks}
        total = max(1, int(count_N[live_N].sum()))
        share_N = np.maximum(count_N, 1) / total
        self._information_N = torch.from_numpy(-np.log2(np.minimum(share_N, 1.0)))

    def add(self, rows_BK: Tensor, ks: Sequence[int]) -> None:
        """Count answers int64 [B, K], -1 where there is none, at each of `ks`."""
        size = len(self._live_N)
        for k in ks:
            rows = rows_BK[:, :k].reshape(-1)
            self._answered[k] += torch.bincount(rows + 1, minlength=size + 1)[1:]

    def take_counts(self) -> dict[int, Answered]:
        """What was counted, by k, and begin anew."""
        taken = {}
        for k, answered_N in self._answered.items():
            row_M = answered_N.nonzero()[:, 0]
            taken[k] = Answered(row_M, answered_N[row_M])
            answered_N.zero_()
        return taken

    def add_counts(self, counted: Mapping[int, Answered]) -> None:
        """Count what another one has counted."""
        for k, answered in counted.items():
            self._answered[k][answered.row_M] += answered.count_M

    def means(self) -> dict[str, float]:
        """The metrics at each k; empty where there are no live items.

        "coverage" is the share of the live items that somebody was recommended;
        "calibrated_coverage" the same over the most items that so many answers could name, so that
        it does not grow with the number of users; "gini" the Gini coefficient of the live items'
        numbers of recommendations; "novelty" the mean over all answers of -log2 of the item's share
        of the live items' train events, in bits (Zhou et al., PNAS 2010), where an item without
        one counts as having one.
        """
        size, found = int(self._live_N.sum()), dict[str, float]()
        for k, answered_N in self._answered.items():
            answers = int(answered_N.sum())
            if not size:
                continue
            distinct = int((answered_N > 0).sum())
            information = float((answered_N * self._information_N).sum())
            found |= {
                f"coverage@{k}": distinct / size,
                f"calibrated_coverage@{k}": distinct / max(1, min(size, answers)),
                f"gini@{k}": gini(answered_N[self._live_N].numpy()),
                f"novelty@{k}": information / max(1, answers),
            }
        return found


def gini(count_M: NDArray[np.int64]) -> float:
    """Gini coefficient of some counts: 0 where all are equal, 1 - 1/M where one has all.

    It is the mean absolute difference of two counts over twice their mean, by the sorted counts.
    """
    size, total = len(count_M), int(count_M.sum())
    if not total:
        return 0.0
    weight_M = 2.0 * np.arange(1, size + 1) - size - 1
    return float((weight_M * np.sort(count_M)).sum() / (size * total))
