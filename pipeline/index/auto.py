"""The index that keeps a promise: planned, tried small, built, tuned and verified.

    plan     bytes and seconds of every candidate, before anything is built; none over budget
    try      each kind over a sample of the items: what a search would cost at the promise
    build    from the kind that looked cheapest on, while another looks a fifth cheaper still
    tune     on some queries, to a margin above the promised recall
    verify   on others, by an interval; PromiseError where no candidate keeps the promise

Costs are counted (`pipeline.index.cost`), so that the same vectors and queries give the same
choice on every machine and every time. The clock has a say only where milliseconds are promised.

Legend: B queries, N items, D coordinates.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace

import numpy as np

from pipeline.config import IndexConfig
from pipeline.errors import InputError, PromiseError
from pipeline.index import cost
from pipeline.index.capacity import Plan, plans_of, slowness, within
from pipeline.index.contract import Floats, Index
from pipeline.index.frontier import Candidate, Measured, lines
from pipeline.index.kinds import INDEXES
from pipeline.index.measure import Latency, Truth, latency, recalls, truth_of
from pipeline.index.promise import Interval, Promise, interval_of
from pipeline.index.trial import Trial, tried
from pipeline.index.tune import Point, tuned
from pipeline.log import Progress, Quiet

__all__ = ["Choice", "choose"]

# Having built one kind, another must look so much cheaper to be built as well.
_WORTH = 0.8
# Microseconds of exact search below which nothing else is tried: a call takes as long.
_TRIFLE = 50.0
_BEATEN = "not expected to win"
# Verifications in all: after one that fails, tuning aims higher by what was missing.
_ATTEMPTS = 3


@dataclass(frozen=True)
class Choice:
    """The index to use, its operating point in its parameters, and how it was found.

    `verified` is of queries that tuning did not see, the `attempts`-th such look; `latency` of
    one query on one thread; `candidates` tells what became of every plan; `slowness` is how
    much longer than planned things take on this machine, by a short look.
    """

    kind: str
    index: Index
    promise: Promise
    verified: Interval
    attempts: int
    latency: Latency
    bytes: int
    candidates: tuple[Candidate, ...]
    slowness: float


def choose(
    item_ND: Floats,
    tuning_BD: Floats,
    verifying_BD: Floats,
    config: IndexConfig,
    seed: int = 1,
    progress: Progress | None = None,
) -> Choice:
    """The fastest index over the items that keeps what the config promises.

        config = IndexConfig(recall_at_10=0.95, max_bytes="60MB")
        choice = choose(item_ND, tuning_BD, verifying_BD, config)
        scores, rows = choice.index.search(query_BD, 10)

    It runs on FAISS's threads (`pipeline.index.contract.threads`), and needs no run.

    Args:
        item_ND: float32 [N, D], compared by inner product.
        tuning_BD: float32 [B, D], queries to tune with, such as will be asked.
        verifying_BD: other queries like these, to verify with.
        config: `kind` "auto" or the only one to search; the promise.
        seed: of k-means and of samples.
        progress: hears of candidates.

    Raises:
        ConfigError: no such kind, or parameters that do not fit the vectors.
        InputError: no items, or numbers that are not finite.
        PromiseError: nothing keeps the promise; shows what was measured.
    """
    check_vectors(items=item_ND, tuning=tuning_BD, verifying=verifying_BD)
    promise, progress = Promise.of(config), progress or Quiet()
    items, dim = item_ND.shape
    plans = plans_of(items, dim, config)
    if promise.recall == 1.0 or not len(verifying_BD):  # nothing proves another kind
        plans = _exact(plans)
    fitting = within(plans, promise.bytes, items, dim)
    trials = _trials(item_ND, tuning_BD, fitting, config, promise.aim)
    hunt = _Hunt(item_ND, truth_of(tuning_BD, item_ND), len(verifying_BD), promise, seed)
    for done, trial in enumerate(trials):
        progress.update(done, len(trials), "candidates")
        hunt.consider(trial)
    progress.update(len(trials), len(trials), "candidates")
    return hunt.kept(truth_of(verifying_BD, item_ND), _left_out(plans, fitting, trials))


def _exact(plans: list[Plan]) -> list[Plan]:
    """Those whose recall needs no proof.

    Raises:
        PromiseError: there are none.
    """
    kept = [plan for plan in plans if INDEXES[plan.kind].exact]
    if not kept:
        raise PromiseError(
            f"there are no queries to verify index.kind = '{plans[0].kind}' with",
            todo="Set index.kind = 'flat' or 'auto', or hold out events of known users",
        )
    return kept


def _trials(
    item_ND: Floats, query_BD: Floats, plans: list[Plan], config: IndexConfig, aim: float
) -> list[Trial]:
    """Plans in the order to build them in; of one kind alone, the finest first."""
    items, dim = item_ND.shape
    exact = [plan for plan in plans if INDEXES[plan.kind].exact]
    if exact and cost.products(items, dim) <= min(_TRIFLE, Promise.of(config).ceiling):
        return [Trial(exact[0], 1.0, cost.products(items, dim))]
    if len({plan.kind for plan in plans}) == 1:
        return [Trial(plan, 1.0, math.inf) for plan in plans]
    return tried(item_ND, query_BD, plans, config, aim)


def _left_out(plans: list[Plan], fitting: list[Plan], trials: list[Trial]) -> list[Candidate]:
    """What is not built, and why."""
    shown = {id(trial.plan) for trial in trials}
    why = {id(plan): "an earlier one of its kind did" for plan in fitting}
    return [
        Candidate(plan, why.get(id(plan), "over max_bytes"))
        for plan in plans
        if id(plan) not in shown
    ]


def check_vectors(**vectors: Floats) -> None:
    """Raise InputError where there are no items, or a vector has NaN or infinity in it."""
    for name, vector_ND in vectors.items():
        # A sum over each: without a mask as large as the vectors.
        bad_N = ~np.isfinite(vector_ND.sum(axis=1, dtype=np.float64))
        if bad_N.any():
            raise InputError(
                f"{int(bad_N.sum()):,} of {len(bad_N):,} vectors ({name}) hold NaN or infinity, "
                f"the first in row {int(bad_N.argmax())}",
                todo="No index can rank by them; train anew with a lower learning rate",
            )
    if not len(vectors.get("items", [0])):
        raise InputError("there are no items to index")


class _Hunt:
    """The best point so far, and what became of every trial."""

    def __init__(
        self, item_ND: Floats, tuning: Truth, verified: int, promise: Promise, seed: int
    ) -> None:
        self.item_ND = item_ND
        self.tuning = tuning
        self.verified = verified
        self.promise = promise
        self.seed = seed
        self.best: Point | None = None
        self.winner: Candidate | None = None
        self.candidates: list[Candidate] = []

    def consider(self, trial: Trial) -> None:
        """Build the trial's plan, unless it cannot win."""
        told = trial.recall >= self.promise.aim and math.isfinite(trial.microseconds)
        expected = trial.microseconds if told else None
        if self._worth(trial):
            self._build(trial.plan, expected)
        else:
            self.candidates.append(Candidate(trial.plan, _BEATEN, expected))

    def _build(self, plan: Plan, expected: float | None) -> None:
        start = time.perf_counter()
        index = INDEXES[plan.kind].build(self.item_ND, plan.parameters, self.seed)
        made = Candidate(
            plan, "built", expected, len(index.save()), round(time.perf_counter() - start, 3)
        )
        if self.promise.bytes and (made.bytes or 0) > self.promise.bytes:
            self.candidates.append(replace(made, verdict="over max_bytes once built"))
            return
        points = tuned(
            index, self.tuning, self.item_ND, self.promise.aim, self.promise.ceiling, self.verified
        )
        made = replace(made, points=tuple(self._measured(point) for point in points))
        self.candidates.append(made)
        best = min(points, key=self._order)
        if self.best is None or self._order(best) < self._order(self.best):
            self.best, self.winner = best, made

    def kept(self, verifying: Truth, left_out: list[Candidate]) -> Choice:
        """The best point, verified; exact search where it fails and that is within budget.

        Raises:
            PromiseError: nothing keeps the promise.
        """
        choice = self._verified(verifying)
        exact = [c for c in self.candidates if INDEXES[c.plan.kind].exact and c.verdict == _BEATEN]
        if choice is None and exact:
            self.candidates.remove(exact[0])
            self.best = None
            self._build(exact[0].plan, exact[0].expected)
            choice = self._verified(verifying)
        every = (*self.candidates, *left_out)
        if choice is None:
            raise PromiseError(
                f"no index keeps {self.promise}",
                todo=f"Promise less; of what was measured nothing is better than\n{lines(every)}",
            )
        return replace(choice, candidates=every)

    def _verified(self, verifying: Truth) -> Choice | None:
        """The best point, tuned again where it falls short; None where it cannot be mended."""
        promise = self.promise
        aim, ceiling = promise.aim, promise.ceiling
        for attempt in range(1, _ATTEMPTS + 1):
            if self.best is None or self.winner is None or self.best.microseconds > ceiling:
                return None
            if self.best.recall < promise.recall:
                return None
            index = self.best.index
            found = interval_of(recalls(index, verifying, self.item_ND), verifying.k)
            if index.exact:
                found = replace(found, low=1.0, high=1.0)
            taken = latency(index, verifying)
            slow = promise.milliseconds and taken.mean > promise.milliseconds
            if found.low >= promise.recall and not slow:
                kind, size = self.winner.plan.kind, self.winner.bytes or 0
                return Choice(kind, index, promise, found, attempt, taken, size, (), slowness())
            if slow:
                ceiling = min(ceiling, self.best.microseconds) * 0.9
                ceiling *= promise.milliseconds / taken.mean
            aim += max(0.0, promise.recall - found.low)
            points = tuned(index, self.tuning, self.item_ND, aim, ceiling, self.verified)
            self.best = min(points, key=self._order)
        return None

    def _worth(self, trial: Trial) -> bool:
        if self.best is None:
            return True
        if self.best.microseconds > self.promise.ceiling:
            return trial.microseconds < self.best.microseconds
        if self._reached(self.best):
            cheaper = trial.microseconds < _WORTH * self.best.microseconds
            return trial.recall >= self.promise.aim and cheaper
        return trial.recall >= self.promise.aim or trial.recall > self.best.recall

    def _reached(self, point: Point) -> bool:
        return point.sure(self.verified) >= self.promise.aim

    def _order(self, point: Point) -> tuple[float, ...]:
        if point.microseconds > self.promise.ceiling:
            return 2.0, point.microseconds
        if self._reached(point):
            return 0.0, point.microseconds
        return 1.0, -point.recall

    def _measured(self, point: Point) -> Measured:
        taken = latency(point.index, self.tuning)
        return Measured(point.index.parameters, point.recall, point.microseconds, taken.mean)
