"""The fastest index that meets its targets: planned, tried, built, tuned and verified.

    plan     bytes and build time of every candidate, before anything is built; none over budget
    try      each kind over a sample of the items: the expected cost of a search at the target
    build    the plan with the least expected cost, and others that are expected to cost less than
             0.8 of that, or that a thin sample cannot rule out
    tune     on some queries, to a margin above the target recall
    verify   on other queries, by a confidence interval; IndexTargetError where no candidate passes

Costs are counted (`embedmill.pipeline.index.cost`), so that the same vectors and queries give the
same selection every time, on any number of threads. Measured time matters only where the config
has a latency target.

Legend: B queries, N items, D coordinates.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from embedmill.pipeline.config import IndexConfig
from embedmill.pipeline.index import cost
from embedmill.pipeline.index.kinds import INDEXES
from embedmill.pipeline.index.measure import ground_truth
from embedmill.pipeline.index.searchable import FaissIndex, Floats, Tunable
from embedmill.pipeline.index.selection.candidates import Candidate, Outcome
from embedmill.pipeline.index.selection.plans import Plan, PlanSet, all_plans, feasible_plans
from embedmill.pipeline.index.selection.selector import Selection, SelectionTask, select
from embedmill.pipeline.index.selection.targets import Targets
from embedmill.pipeline.index.selection.trials import Trial, is_thin_sample, run_trials
from embedmill.pipeline.index.vector_checks import check_vectors
from embedmill.pipeline.log import Progress, Quiet

__all__ = ["choose", "select_among"]

IndexT = TypeVar("IndexT", bound=Tunable)

# Where exact search costs fewer microseconds than this, nothing else is tried: the call itself
# takes about as long.
_EXACT_IS_FAST_US = 50.0


def choose(
    item_ND: Floats,
    tuning_BD: Floats,
    verifying_BD: Floats,
    config: IndexConfig,
    seed: int = 1,
    progress: Progress | None = None,
) -> Selection[FaissIndex]:
    """Select and build the fastest index over the items that meets the targets of the config.

        config = IndexConfig(recall_at_10=0.95, max_bytes="60MB")
        selection = choose(item_ND, tuning_BD, verifying_BD, config)
        scores, rows = selection.index.search(query_BD, 10)

    Needs no run. FAISS uses as many threads as it is set to
    (`embedmill.pipeline.index.faiss_threads`).

    Args:
        item_ND: float32 [N, D], compared by inner product.
        tuning_BD: float32 [B, D], queries to tune with, like those that will be asked.
        verifying_BD: float32 [B, D], other such queries, to verify with.
        config: `kind` ("auto" or the only kind to consider) and targets.
        seed: of k-means and of samples.
        progress: is told of candidates.

    Raises:
        ConfigError: no such kind, or parameters that do not fit the vectors.
        InputError: no items, or numbers that are not finite.
        IndexTargetError: nothing meets the targets; shows what was measured.
    """
    item_ND, tuning_BD, verifying_BD = (
        np.ascontiguousarray(vectors, np.float32) for vectors in (item_ND, tuning_BD, verifying_BD)
    )
    check_vectors(items=item_ND, tuning=tuning_BD, verifying=verifying_BD)
    (items, dim), targets = item_ND.shape, Targets.of(config)
    every = all_plans(items, dim, config)
    plans = PlanSet(every, feasible_plans(every, targets, len(verifying_BD), items, dim))

    def build(plan: Plan) -> tuple[FaissIndex, int]:
        index = INDEXES[plan.kind].build(item_ND, plan.parameters, seed)
        return index, len(index.to_bytes())

    tuning, verifying = ground_truth(tuning_BD, item_ND), ground_truth(verifying_BD, item_ND)
    task = SelectionTask(tuning, verifying, targets, build, thin_sample=is_thin_sample(items))
    return select_among(plans, item_ND, items, task, config, progress or Quiet())


def select_among(
    plans: PlanSet,
    item_ND: Floats,
    items: int,
    task: SelectionTask[IndexT],
    config: IndexConfig,
    progress: Progress,
) -> Selection[IndexT]:
    """Try the feasible plans over a sample, then select among them.

    Args:
        plans: of one kind or of all.
        item_ND: float32 [N, D], all items or a sample of them.
        items: number of all items.
        task: queries, targets, and how to build a plan.
        config: to plan the same candidates for the sample.
        progress: is told of candidates.

    Raises:
        IndexTargetError: nothing meets the targets; shows what was measured.
    """
    trials = _trials(plans.feasible, item_ND, items, task, config)
    return select(trials, _left_out(plans, trials), task, progress)


def _trials(
    plans: Sequence[Plan],
    item_ND: Floats,
    items: int,
    task: SelectionTask[IndexT],
    config: IndexConfig,
) -> list[Trial]:
    """Plans in the order in which to build them; of a single kind, as they come."""
    exact_us = cost.batched_products(items, item_ND.shape[1])
    exact = [plan for plan in plans if INDEXES[plan.kind].exact]
    if exact and exact_us <= min(_EXACT_IS_FAST_US, task.targets.max_cost_us):
        return [Trial(exact[0], 1.0, exact_us)]
    single_kind = len({plan.kind for plan in plans}) == 1
    if single_kind and INDEXES[plans[0].kind].min_trials == 1:
        return [Trial(plan, 1.0, math.inf) for plan in plans]
    target_recall = task.targets.tuning_recall
    return run_trials(item_ND, items, task.tuning.query_BD, plans, config, target_recall)


def _left_out(plans: PlanSet, trials: Sequence[Trial]) -> list[Candidate]:
    """The plans that are not built, and why."""
    tried = {trial.plan.key for trial in trials}
    reasons = {plan.key: Outcome.EARLIER_PLAN_TAKEN for plan in plans.feasible}
    reasons |= {plan.key: Outcome.TOO_SLOW_TO_BUILD for plan in plans.too_slow}
    return [
        Candidate(plan, reasons.get(plan.key, Outcome.OVER_BUDGET))
        for plan in plans.every
        if plan.key not in tried
    ]
