"""Tuning: the cheapest operating point of a built index that reaches a target recall.

Legend: B queries.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from embedmill.pipeline.index.measure import Truth, recalls
from embedmill.pipeline.index.searchable import Tunable
from embedmill.pipeline.index.selection.confidence import tuning_margin

__all__ = ["OperatingPoint", "tune"]

IndexT = TypeVar("IndexT", bound=Tunable)

# Ratio of one setting to the next.
_RATIO = 1.08
# Settings to skip at once at first, about a doubling. Where such a step raises a recall above one
# half by less than this, no setting will give more.
_STRIDE = 8
_HALF = 0.5
_FLAT = 0.0005
# If the maximum setting misses the target, use the cheapest one within 0.002 recall of it.
_NEAR_MAXIMUM = 0.002


@dataclass(frozen=True)
class OperatingPoint(Generic[IndexT]):
    """An index with certain search parameters, and what tuning found.

    `recall_B` is float64 [B] by query, `cost_us` is counted (`Tunable.cost_us`).
    """

    index: IndexT
    recall_B: NDArray[np.float64]
    cost_us: float

    @property
    def recall(self) -> float:
        """Mean over the queries; 1 without any."""
        return float(self.recall_B.mean()) if len(self.recall_B) else 1.0

    def confirmed_recall(self, verifying_queries: int) -> float:
        """The recall that a verification with so many queries most likely confirms; 0: `recall`."""
        margin = tuning_margin(self.recall_B, verifying_queries) if verifying_queries else 0.0
        return self.recall - margin


def tune(
    index: IndexT,
    truth: Truth,
    target_recall: float,
    max_cost_us: float = math.inf,
    verifying_queries: int = 0,
) -> list[OperatingPoint[IndexT]]:
    """For every variant of an index, its cheapest point that reaches a recall, or its best one.

    Recall and cost both rise with the setting, so the least sufficient setting is found by
    bisection: it is doubled until the recall is reached, stops rising, or costs too much; then the
    last interval is bisected. The most expensive variant comes first; its cost is the limit of
    those after it.

    Args:
        index: as built.
        truth: tuning queries and the correct answers.
        target_recall: recall to reach.
        max_cost_us: microseconds above which a point is of no use.
        verifying_queries: number of queries of a later verification that should confirm the
            recall; 0 for none.

    Returns:
        a point for each variant; it costs more than `max_cost_us` where its cheapest does.
    """
    points = []
    for variant in reversed(index.variants()):
        measure = functools.partial(_measure, index, truth, variant)
        search = _SettingSearch(measure, _ladder(*index.limits()), verifying_queries)
        point = search.cheapest(target_recall, max_cost_us)
        if point.confirmed_recall(verifying_queries) >= target_recall:
            max_cost_us = min(max_cost_us, point.cost_us)
        points.append(point)
    return points


class _SettingSearch(Generic[IndexT]):
    """Searches the ladder of settings; each is measured at most once."""

    def __init__(
        self,
        measure: Callable[[int], OperatingPoint[IndexT]],
        ladder: list[int],
        verifying_queries: int,
    ) -> None:
        self.measure = functools.cache(measure)
        self.ladder = ladder
        self.verifying_queries = verifying_queries

    def at(self, step: int) -> OperatingPoint[IndexT]:
        """The point of the setting at this step of the ladder."""
        return self.measure(self.ladder[step])

    def cheapest(self, target_recall: float, max_cost_us: float) -> OperatingPoint[IndexT]:
        """The first point that reaches the target, else the best one within the cost limit.

        The first point of all where even that exceeds the limit.
        """
        step = self._first(target_recall, max_cost_us)
        if self.at(step).cost_us > max_cost_us:
            step = max(0, step - 1)
        if self._confirmed(step) < target_recall:
            step = self._first(self._confirmed(step) - _NEAR_MAXIMUM, max_cost_us)
        return self.at(step)

    def _first(self, target_recall: float, max_cost_us: float) -> int:
        """The lowest step that reaches the target or exceeds the limit, else the last of use."""
        low, high, recall_before = 0, 0, -1.0
        while not self._ends(high, target_recall, max_cost_us):
            recall = self.at(high).recall
            flat = recall > _HALF and recall - recall_before < _FLAT
            if flat or high == len(self.ladder) - 1:
                return high
            recall_before, low, high = recall, high + 1, min(high + _STRIDE, len(self.ladder) - 1)
        while low < high:
            middle = (low + high) // 2
            if self._ends(middle, target_recall, max_cost_us):
                high = middle
            else:
                low = middle + 1
        return high

    def _ends(self, step: int, target_recall: float, max_cost_us: float) -> bool:
        return self._confirmed(step) >= target_recall or self.at(step).cost_us > max_cost_us

    def _confirmed(self, step: int) -> float:
        return self.at(step).confirmed_recall(self.verifying_queries)


def _measure(
    index: IndexT, truth: Truth, variant: Mapping[str, int], setting: int
) -> OperatingPoint[IndexT]:
    name = index.search_parameter
    tuned = index.with_parameters({**variant, name: setting} if name else variant)
    return OperatingPoint(tuned, recalls(tuned, truth), tuned.cost_us(truth.query_BD, truth.k))


def _ladder(least: int, most: int) -> list[int]:
    """Settings from least to most, each about a twelfth above the one before."""
    settings = [least]
    while settings[-1] < most:
        settings.append(min(most, max(settings[-1] + 1, round(settings[-1] * _RATIO))))
    return settings
