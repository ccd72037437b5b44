"""The selection itself: build what the trials recommend, tune it, and verify the best.

Legend: B queries.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from embedmill.pipeline.errors import IndexTargetError
from embedmill.pipeline.index.kinds import INDEXES
from embedmill.pipeline.index.measure import Latency, Truth, latency, recalls
from embedmill.pipeline.index.searchable import Tunable
from embedmill.pipeline.index.selection.candidates import (
    Candidate,
    MeasuredPoint,
    Outcome,
    frontier_table,
)
from embedmill.pipeline.index.selection.confidence import Interval, recall_interval
from embedmill.pipeline.index.selection.plans import Plan, machine_slowdown
from embedmill.pipeline.index.selection.targets import Targets
from embedmill.pipeline.index.selection.trials import MAX_COST_RATIO, Trial
from embedmill.pipeline.index.selection.tuning import OperatingPoint, tune
from embedmill.pipeline.log import Progress

__all__ = ["Considered", "Selection", "SelectionTask", "build_promising", "select"]

IndexT = TypeVar("IndexT", bound=Tunable)

# Verifications in all: after one that fails, the index is tuned to a higher recall.
_MAX_ATTEMPTS = 3
# Then the tuning recall rises by at least this share of what the target leaves to be missed.
_MIN_RAISE = 0.05
# With a thin sample, also build a kind that was expected at less than so many times the cost of
# the cheapest: for two million vectors in 20,000 clusters a sample of 8,192 predicted 303 us for
# lists and 442 for a graph, which then took 86 and 53.
_THIN_SAMPLE_RATIO = 2.0


@dataclass(frozen=True)
class Selection(Generic[IndexT]):
    """The selected index, its operating point in its parameters, and how it was found.

    `verified` is the recall of queries that tuning did not see, at the `attempts`-th
    verification; `latency` that of one query on one thread; `candidates` has the outcome of
    every plan; `slowdown` is how many times as long as estimated builds take on this machine.
    """

    plan: Plan
    index: IndexT
    targets: Targets
    verified: Interval
    attempts: int
    latency: Latency
    bytes: int
    candidates: tuple[Candidate, ...]
    slowdown: float

    @property
    def kind(self) -> str:
        """Name of the selected kind."""
        return self.plan.kind


@dataclass(frozen=True)
class SelectionTask(Generic[IndexT]):
    """What a selection works with.

    `tuning` and `verifying` are queries over all items with their correct answers, `build` gives
    the index of a plan over all items and its bytes. Once a kind has been built, another is built
    only if it is expected to cost less than `max_cost_ratio` of the best so far. With a
    `thin_sample` the trials predict little; then a kind that is expected at less than twice the
    cost of the cheapest is built as well.
    """

    tuning: Truth
    verifying: Truth
    targets: Targets
    build: Callable[[Plan], tuple[IndexT, int]]
    max_cost_ratio: float = MAX_COST_RATIO
    thin_sample: bool = False

    @property
    def verifying_queries(self) -> int:
        """Number of queries to verify with."""
        return len(self.verifying.query_BD)


@dataclass(frozen=True)
class Considered(Generic[IndexT]):
    """The outcome of a trial's plan, and its best operating point where it was built."""

    candidate: Candidate
    best: OperatingPoint[IndexT] | None = None


@dataclass(frozen=True)
class _Verified(Generic[IndexT]):
    """An index that passed verification."""

    candidate: Candidate
    index: IndexT
    interval: Interval
    attempts: int
    latency: Latency


def select(
    trials: Sequence[Trial],
    left_out: Sequence[Candidate],
    task: SelectionTask[IndexT],
    progress: Progress,
) -> Selection[IndexT]:
    """Build the plans of promising trials, tune them, and verify the best operating point.

    Where verification fails, exact search is built instead, if it was tried and not built yet.

    Args:
        trials: the most promising first.
        left_out: candidates without a trial, for the record.
        task: queries, targets, and how to build.
        progress: is told of candidates.

    Raises:
        IndexTargetError: no candidate meets the targets; shows what was measured.
    """
    considered = build_promising(trials, task, progress)
    verified = _verify(_best(considered, task), task)
    exact = next((one for one in considered if _is_exact_and_not_built(one.candidate)), None)
    if verified is None and exact is not None:
        candidate = exact.candidate
        built = _build(candidate.plan, candidate.expected_us, task)
        considered = [*(one for one in considered if one is not exact), built]
        verified = _verify(built, task)
    candidates = (*(one.candidate for one in considered), *left_out)
    if verified is None:
        raise IndexTargetError(
            f"no index meets {task.targets}",
            todo="Lower the targets; nothing that was measured is better than\n"
            f"{frontier_table(candidates)}",
        )
    return Selection(
        plan=verified.candidate.plan,
        index=verified.index,
        targets=task.targets,
        verified=verified.interval,
        attempts=verified.attempts,
        latency=verified.latency,
        bytes=verified.candidate.bytes or 0,
        candidates=candidates,
        slowdown=machine_slowdown(),
    )


def build_promising(
    trials: Sequence[Trial], task: SelectionTask[IndexT], progress: Progress
) -> list[Considered[IndexT]]:
    """Build and tune the plan of each trial, in order, unless it is not expected to win.

    Args:
        trials: the most promising first.
        task: queries, targets, and how to build.
        progress: is told of candidates.

    Returns:
        the outcome of each trial.
    """
    considered: list[Considered[IndexT]] = []
    for done, trial in enumerate(trials):
        progress.update(done, len(trials), "candidates")
        reached = trial.recall >= task.targets.tuning_recall and math.isfinite(trial.cost_us)
        expected_us = trial.cost_us if reached else None
        if _may_win(trial, considered, task):
            considered.append(_build(trial.plan, expected_us, task))
        else:
            skipped = Candidate(trial.plan, Outcome.NOT_EXPECTED_TO_WIN, expected_us)
            considered.append(Considered(skipped))
    progress.update(len(trials), len(trials), "candidates")
    return considered


def _build(
    plan: Plan, expected_us: float | None, task: SelectionTask[IndexT]
) -> Considered[IndexT]:
    """Build a plan over all items and tune it."""
    targets, start = task.targets, time.perf_counter()
    index, size = task.build(plan)
    seconds = round(time.perf_counter() - start, 3)
    candidate = Candidate(plan, Outcome.BUILT, expected_us, size, seconds)
    if targets.bytes and size > targets.bytes:
        return Considered(replace(candidate, outcome=Outcome.BUILT_TOO_LARGE))
    points = tune(
        index, task.tuning, targets.tuning_recall, targets.max_cost_us, task.verifying_queries
    )
    measured = tuple(
        MeasuredPoint(
            point.index.parameters,
            point.recall,
            point.cost_us,
            latency(point.index, task.tuning).mean,
        )
        for point in points
    )
    best = _best_point(points, targets.tuning_recall, targets.max_cost_us, task)
    return Considered(replace(candidate, points=measured), best)


def _verify(
    considered: Considered[IndexT] | None, task: SelectionTask[IndexT]
) -> _Verified[IndexT] | None:
    """Verify an operating point; tune it again where it falls short, None where that fails."""
    if considered is None or considered.best is None:
        return None
    targets, point = task.targets, considered.best
    tuning_recall, max_cost_us = targets.tuning_recall, targets.max_cost_us
    for attempt in range(1, _MAX_ATTEMPTS + 1):
        if point.cost_us > max_cost_us or point.recall < targets.recall:
            return None
        index = point.index
        interval = recall_interval(recalls(index, task.verifying), task.verifying.k)
        if index.exact:
            interval = replace(interval, low=1.0, high=1.0)
        measured = latency(index, task.verifying)
        too_slow = bool(targets.milliseconds) and measured.mean > targets.milliseconds
        if interval.low >= targets.recall and not too_slow:
            return _Verified(considered.candidate, index, interval, attempt, measured)
        if too_slow:
            max_cost_us = min(max_cost_us, point.cost_us) * 0.9
            max_cost_us *= targets.milliseconds / measured.mean
        if interval.low < targets.recall:
            missing = max(targets.recall - interval.low, _MIN_RAISE * (1 - targets.recall))
            tuning_recall = point.confirmed_recall(task.verifying_queries) + missing
        points = tune(index, task.tuning, tuning_recall, max_cost_us, task.verifying_queries)
        point = _best_point(points, tuning_recall, max_cost_us, task)
    return None


def _may_win(
    trial: Trial, considered: Sequence[Considered[IndexT]], task: SelectionTask[IndexT]
) -> bool:
    """Whether a trial's plan may beat the best operating point so far.

    A second plan of a kind is built only where no earlier one reached the target.
    """
    targets, best = task.targets, _best(considered, task)
    if best is None or best.best is None:
        return True
    point, target_recall = best.best, targets.tuning_recall
    if trial.plan.kind in {one.candidate.plan.kind for one in considered if _reached(one, task)}:
        return False
    if point.cost_us > targets.max_cost_us:
        return trial.cost_us < point.cost_us
    if point.confirmed_recall(task.verifying_queries) >= target_recall:
        cheaper = trial.cost_us < task.max_cost_ratio * point.cost_us
        uncertain = _is_uncertain(trial, considered, task)
        return trial.recall >= target_recall and (cheaper or uncertain)
    return trial.recall >= target_recall or trial.recall > point.recall


def _is_uncertain(
    trial: Trial, considered: Sequence[Considered[IndexT]], task: SelectionTask[IndexT]
) -> bool:
    """Whether trials over a thin sample leave open that this kind is cheaper than those built."""
    built = [one.candidate for one in considered if one.candidate.outcome is Outcome.BUILT]
    expected = [one.expected_us for one in built if one.expected_us is not None]
    if not task.thin_sample or not expected or trial.plan.kind in {one.plan.kind for one in built}:
        return False
    return trial.cost_us < _THIN_SAMPLE_RATIO * min(expected)


def _best(
    considered: Sequence[Considered[IndexT]], task: SelectionTask[IndexT]
) -> Considered[IndexT] | None:
    """The plan with the best operating point, the earliest of equal ones."""
    built = [(_default_key(one.best, task), one) for one in considered if one.best is not None]
    return min(built, key=lambda pair: pair[0])[1] if built else None


def _best_point(
    points: Sequence[OperatingPoint[IndexT]],
    target_recall: float,
    max_cost_us: float,
    task: SelectionTask[IndexT],
) -> OperatingPoint[IndexT]:
    return min(points, key=lambda point: _sort_key(point, target_recall, max_cost_us, task))


def _reached(considered: Considered[IndexT], task: SelectionTask[IndexT]) -> bool:
    """Whether a plan was built and reached the target recall within the cost limit."""
    return considered.best is not None and _default_key(considered.best, task)[0] == 0.0


def _default_key(point: OperatingPoint[IndexT], task: SelectionTask[IndexT]) -> tuple[float, float]:
    return _sort_key(point, task.targets.tuning_recall, task.targets.max_cost_us, task)


def _sort_key(
    point: OperatingPoint[IndexT],
    target_recall: float,
    max_cost_us: float,
    task: SelectionTask[IndexT],
) -> tuple[float, float]:
    """Points that reach the target come first, by cost; then by recall; too slow ones last."""
    if point.cost_us > max_cost_us:
        return 2.0, point.cost_us
    if point.confirmed_recall(task.verifying_queries) >= target_recall:
        return 0.0, point.cost_us
    return 1.0, -point.recall


def _is_exact_and_not_built(candidate: Candidate) -> bool:
    return INDEXES[candidate.plan.kind].exact and candidate.outcome is Outcome.NOT_EXPECTED_TO_WIN
