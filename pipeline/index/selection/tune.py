"""The operating point of a built index: the least of its knob that reaches a recall.

Legend: B queries, N items.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from embedmill.pipeline.index.contract import Floats, Index
from embedmill.pipeline.index.measure import Truth, recalls
from embedmill.pipeline.index.selection.target import margin

__all__ = ["Point", "tuned"]

# Steps of the knob: one value to the next.
_STEP = 1.08
# Steps taken at once at first, about a doubling. A recall above one half that rises by less in one
# has reached its end.
_STRIDE = 8
_SOME = 0.5
_FLAT = 0.0005
# A knob at its end short of the aim is taken back to where it still finds all but this.
_KNEE = 0.002


@dataclass(frozen=True)
class Point:
    """One way to search an index, and what tuning found of it.

    `recall_B` is float64 [B] by query, `microseconds` are counted (`Index.microseconds`).
    """

    index: Index
    recall_B: NDArray[np.float64]
    microseconds: float

    def sure(self, verified: int) -> float:
        """The recall that so many other queries most likely confirm; of none, the mean."""
        return self.recall - (margin(self.recall_B, verified) if verified else 0.0)

    @property
    def recall(self) -> float:
        """Mean over the queries."""
        return float(self.recall_B.mean()) if len(self.recall_B) else 1.0


def tuned(
    index: Index,
    truth: Truth,
    item_ND: Floats,
    aim: float,
    ceiling: float = math.inf,
    verified: int = 0,
) -> list[Point]:
    """For every variant of an index, the cheapest point that reaches a recall, or the best one.

    Both recall and cost rise with the knob, so its values are bisected: doubled until the
    recall is reached, does not rise any more, or the cost is too high, then halved in. The
    dearest variant comes first; what it takes is the ceiling of those after it.

    Args:
        index: as built.
        truth: queries to tune with.
        item_ND: float32 [N, D], raw vectors.
        aim: recall to reach.
        ceiling: microseconds beyond which a point is of no use.
        verified: queries of a verification that the aim is to pass, 0 for none.

    Returns:
        a point for each variant: one above the ceiling where its cheapest is.
    """
    found = []
    for variant in reversed(index.variants()):
        look = functools.partial(_look, index, truth, item_ND, variant)
        search = _Search(look, _ladder(*index.limits()), verified)
        point = search.least(aim, ceiling)
        if point.sure(verified) >= aim:
            ceiling = min(ceiling, point.microseconds)
        found.append(point)
    return found


class _Search:
    """Looks at values of the knob, each once."""

    def __init__(self, look: Callable[[int], Point], ladder: list[int], verified: int) -> None:
        self.look = functools.cache(look)
        self.ladder = ladder
        self.verified = verified

    def at(self, step: int) -> Point:
        """What the value at this step of the ladder gives."""
        return self.look(self.ladder[step])

    def least(self, aim: float, ceiling: float) -> Point:
        """The first point that reaches the aim, else the best below the ceiling, else the first."""
        last = self._first(aim, ceiling)
        if self.at(last).microseconds > ceiling:
            last = max(0, last - 1)
        if self._sure(last) < aim:
            last = self._first(self._sure(last) - _KNEE, ceiling)
        return self.at(last)

    def _first(self, aim: float, ceiling: float) -> int:
        """The lowest step that reaches the aim or exceeds the ceiling, else the last of use."""
        low, high, before = 0, 0, -1.0
        while not self._enough(high, aim, ceiling):
            found = self.at(high).recall
            ended = found > _SOME and found - before < _FLAT
            if ended or high == len(self.ladder) - 1:
                return high
            before, low, high = found, high + 1, min(high + _STRIDE, len(self.ladder) - 1)
        while low < high:
            middle = (low + high) // 2
            if self._enough(middle, aim, ceiling):
                high = middle
            else:
                low = middle + 1
        return high

    def _enough(self, step: int, aim: float, ceiling: float) -> bool:
        return self._sure(step) >= aim or self.at(step).microseconds > ceiling

    def _sure(self, step: int) -> float:
        return self.at(step).sure(self.verified)


def _look(
    index: Index, truth: Truth, item_ND: Floats, variant: Mapping[str, int], value: int
) -> Point:
    knob = {index.knob: value} if index.knob else {}
    at = index.at({**variant, **knob})
    return Point(at, recalls(at, truth, item_ND), at.microseconds(truth.query_BD, truth.k))


def _ladder(least: int, most: int) -> list[int]:
    """Whole numbers from least to most, each about a twelfth above the one before."""
    steps = [least]
    while steps[-1] < most:
        steps.append(min(most, max(steps[-1] + 1, round(steps[-1] * _STEP))))
    return steps
