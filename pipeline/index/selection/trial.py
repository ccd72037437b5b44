"""Each kind tried over a sample of the items: what a search of it would cost.

Legend: B queries, N items, D coordinates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from embedmill.pipeline.config import IndexConfig
from embedmill.pipeline.index import cost
from embedmill.pipeline.index.contract import Floats
from embedmill.pipeline.index.kinds import INDEXES
from embedmill.pipeline.index.kinds.inverted import sample
from embedmill.pipeline.index.measure import Truth, truth_of
from embedmill.pipeline.index.selection.plans import Plan
from embedmill.pipeline.index.selection.tune import Point, tuned

__all__ = ["WORTH", "Trial", "ordered", "thin", "tried"]

# Items that kinds are tried with, at most, and at most this share of them; queries.
_ITEMS = 8192
_SHARE = 4
# Of a hundred times as many items the sample is thin: clusters of a hundred are not in it.
_THIN = 100
_QUERIES = 300
# What takes so many times as long to build as another kind, or is built when another has been,
# must look cheaper by this factor.
_LONG = 2
WORTH = 0.8


@dataclass(frozen=True)
class Trial:
    """A plan, the recall of its sample, and microseconds of a search over all items."""

    plan: Plan
    recall: float
    microseconds: float

    @property
    def exact(self) -> bool:
        """Whether its kind is: that takes no time to build."""
        return INDEXES[self.plan.kind].exact

    def order(self, aim: float) -> tuple[float, float]:
        """Sorts what reaches the aim first, by cost; then by what is missing."""
        return (0.0, self.microseconds) if self.recall >= aim else (1.0, -self.recall)


def tried(
    item_ND: Floats,
    items: int,
    query_BD: Floats,
    plans: Sequence[Plan],
    config: IndexConfig,
    aim: float,
) -> list[Trial]:
    """The best trial of each kind, the most promising first; `item_ND` are `items`, or some.

    Where that is not of its finest plan, the best of a finer one as well, to be built should the
    first fall short: codes that tell the items of a sample apart may be too coarse for all.

    Of a kind, plans are tried from the finest on until one reaches the aim, and `Index.tries` of
    them anyway; spare kinds are tried where no other reaches it; exact search needs no trial.
    Recall falls and cost grows with the number of items, the cost as `Index.microseconds` says.
    """
    few = max(1, min(_ITEMS, items // _SHARE))
    some_ND = sample(item_ND, few, seed=0)
    look = _Look(some_ND, truth_of(sample(query_BD, _QUERIES, seed=0), some_ND), items, config, aim)
    found: list[Trial] = []
    for spare in (False, True):
        if any(trial.recall >= aim for trial in found):
            break
        for name in dict.fromkeys(plan.kind for plan in plans if INDEXES[plan.kind].spare == spare):
            found += look.best([plan for plan in plans if plan.kind == name])
    return ordered(found, aim)


def thin(items: int) -> bool:
    """Whether the sample of `tried` may look unlike so many items."""
    return items > _THIN * _ITEMS


def ordered(trials: list[Trial], aim: float) -> list[Trial]:
    """The cheapest first; what takes long to build must look so much cheaper than the others."""
    least = min((trial.plan.seconds for trial in trials if not trial.exact), default=0.0)

    def order(trial: Trial) -> tuple[float, float]:
        missing, figure = trial.order(aim)
        long = not missing and trial.plan.seconds > _LONG * least
        return missing, figure / WORTH if long else figure

    return sorted(trials, key=order)


@dataclass(frozen=True)
class _Look:
    """Builds over the sample: `item_ND` [few, D], of `items` in all."""

    item_ND: Floats
    truth: Truth
    items: int
    config: IndexConfig
    aim: float

    def best(self, plans: Sequence[Plan]) -> list[Trial]:
        """The best trial of a kind's plans, and the best of a finer one that reached the aim."""
        kind, found = INDEXES[plans[0].kind], list[Trial]()
        few, dim = self.item_ND.shape
        if kind.exact:
            return [Trial(plans[0], 1.0, cost.products(self.items, dim))]
        small = kind.candidates(few, dim, self.config)
        for tries, plan in enumerate(plans, 1):
            index = kind.build(self.item_ND, small[plan.place], seed=0)
            points = tuned(index, self.truth, self.item_ND, self.aim)
            found += [Trial(plan, p.recall, self._expected(p)) for p in points]
            if tries >= kind.tries and any(trial.recall >= self.aim for trial in found):
                break
        best = min(found, key=self._order)
        finer = [t for t in found if t.plan.place < best.plan.place and t.recall >= self.aim]
        return [best, *sorted(finer, key=self._order)[:1]]

    def _order(self, trial: Trial) -> tuple[float, float]:
        return trial.order(self.aim)

    def _expected(self, point: Point) -> float:
        """Microseconds over all items."""
        return point.index.microseconds(self.truth.query_BD, self.truth.k, self.items)
