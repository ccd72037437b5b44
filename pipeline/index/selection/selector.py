"""Building what was tried, tuning it, and verifying the best of it.

Legend: B queries, N items, D coordinates.
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from embedmill.pipeline.errors import PromiseError
from embedmill.pipeline.index.contract import Floats, Index
from embedmill.pipeline.index.kinds import INDEXES
from embedmill.pipeline.index.measure import Latency, Truth, latency, recalls
from embedmill.pipeline.index.selection.frontier import Candidate, Measured, lines
from embedmill.pipeline.index.selection.plans import Plan, slowness
from embedmill.pipeline.index.selection.target import Interval, Promise, interval_of
from embedmill.pipeline.index.selection.trial import WORTH, Trial
from embedmill.pipeline.index.selection.tune import Point, tuned

__all__ = ["Choice", "Hunt"]

_BEATEN = "not expected to win"
# Verifications in all: after one that fails, tuning aims higher by what was missing.
_ATTEMPTS = 3
# Of two million vectors in 20,000 clusters a sample of 8,192 told 303 us of lists and 442 of a
# graph, which then took 86 and 53.
_DOUBT = 2.0
# Of what the promise leaves to be missed, at least so much higher.
_LEAST_MORE = 0.05


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


# Builds a plan; the index and its bytes.
Make = Callable[[Plan], tuple[Index, int]]


class Hunt:
    """The best point so far, and what became of every trial.

    `make` builds; having built one kind, another is built that looks cheaper by `worth`. A second
    of the same kind is built only where none reached the aim: `able` are the kinds that did. Where
    the trials' sample is `thin`, they tell little of all items, and one that looked less than
    twice as dear as the cheapest did is built as well.
    """

    def __init__(
        self,
        item_ND: Floats,
        tuning: Truth,
        verified: int,
        promise: Promise,
        make: Make,
        worth: float = WORTH,
        thin: bool = False,
    ) -> None:
        self.item_ND = item_ND
        self.tuning = tuning
        self.verified = verified
        self.promise = promise
        self.make = make
        self.worth = worth
        self.thin = thin
        self.best: Point | None = None
        self.winner: Candidate | None = None
        self.candidates: list[Candidate] = []
        self.able: set[str] = set()

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
        index, size = self.make(plan)
        made = Candidate(plan, "built", expected, size, round(time.perf_counter() - start, 3))
        if self.promise.bytes and (made.bytes or 0) > self.promise.bytes:
            self.candidates.append(replace(made, verdict="over max_bytes once built"))
            return
        points = tuned(
            index, self.tuning, self.item_ND, self.promise.aim, self.promise.ceiling, self.verified
        )
        made = replace(made, points=tuple(self._measured(point) for point in points))
        self.candidates.append(made)
        order = functools.partial(self._order, self.promise.aim, self.promise.ceiling)
        best = min(points, key=order)
        if order(best)[0] == 0.0:
            self.able.add(plan.kind)
        if self.best is None or order(best) < order(self.best):
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
            if found.low < promise.recall:
                missing = max(promise.recall - found.low, _LEAST_MORE * (1 - promise.recall))
                aim = self.best.sure(self.verified) + missing
            points = tuned(index, self.tuning, self.item_ND, aim, ceiling, self.verified)
            self.best = min(points, key=functools.partial(self._order, aim, ceiling))
        return None

    def _worth(self, trial: Trial) -> bool:
        """Whether a trial may still beat the best point."""
        aim, ceiling = self.promise.aim, self.promise.ceiling
        if self.best is None:
            return True
        if trial.plan.kind in self.able:
            return False
        if self.best.microseconds > ceiling:
            return trial.microseconds < self.best.microseconds
        if self.best.sure(self.verified) >= aim:
            cheaper = trial.microseconds < self.worth * self.best.microseconds
            return trial.recall >= aim and (cheaper or self._unlike(trial))
        return trial.recall >= aim or trial.recall > self.best.recall

    def _unlike(self, trial: Trial) -> bool:
        """Whether another kind than those built may be cheaper still, for all that trials tell."""
        built = [one for one in self.candidates if one.verdict == "built"]
        told = [one.expected for one in built if one.expected is not None]
        if not self.thin or not told or trial.plan.kind in {one.plan.kind for one in built}:
            return False
        return trial.microseconds < _DOUBT * min(told)

    def _order(self, aim: float, ceiling: float, point: Point) -> tuple[float, ...]:
        """Sorts what reaches the aim first, by cost; then by what is missing; then too slow."""
        if point.microseconds > ceiling:
            return 2.0, point.microseconds
        if point.sure(self.verified) >= aim:
            return 0.0, point.microseconds
        return 1.0, -point.recall

    def _measured(self, point: Point) -> Measured:
        taken = latency(point.index, self.tuning)
        return Measured(point.index.parameters, point.recall, point.microseconds, taken.mean)
