"""Trials: each kind is built over a sample of the items, to predict the cost of a search.

Legend: B queries, N items, S sampled items, D coordinates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from embedmill.pipeline.config import IndexConfig
from embedmill.pipeline.index import cost
from embedmill.pipeline.index.kinds import INDEXES
from embedmill.pipeline.index.kinds.inverted import sample_rows
from embedmill.pipeline.index.measure import GroundTruth, ground_truth
from embedmill.pipeline.index.searchable import FaissIndex, Floats
from embedmill.pipeline.index.selection.plans import Plan
from embedmill.pipeline.index.selection.tuning import OperatingPoint, tune

__all__ = ["MAX_COST_RATIO", "Trial", "by_expected_cost", "is_thin_sample", "run_trials"]

# Of a sample: items at most, at most this share of all items (one in ...), and queries.
_ITEMS = 8192
_SHARE = 4
_QUERIES = 300
# A sample of less than one item in so many is thin: it has no more than one item of most
# clusters of a hundred.
_THIN = 100
# A plan that takes more than so many times as long to build as the fastest has to be expected to
# search in at most this share of the time, and so has any plan once another has been built.
_SLOW_TO_BUILD = 2
MAX_COST_RATIO = 0.8


@dataclass(frozen=True)
class Trial:
    """A plan, the recall that it reached over the sample, and the expected cost over all items."""

    plan: Plan
    recall: float
    cost_us: float

    @property
    def exact(self) -> bool:
        """Whether its kind is exact; such a kind takes hardly any time to build."""
        return INDEXES[self.plan.kind].exact

    def sort_key(self, target_recall: float) -> tuple[float, float]:
        """Trials that reach the target come first, by cost; then the others, by recall."""
        return (0.0, self.cost_us) if self.recall >= target_recall else (1.0, -self.recall)


def run_trials(
    item_ND: Floats,
    items: int,
    query_BD: Floats,
    plans: Sequence[Plan],
    config: IndexConfig,
    target_recall: float,
) -> list[Trial]:
    """The best trial of each kind, the most promising first.

    Where a finer plan of the same kind reached the target too, the best such trial is returned as
    well: codes that tell the sampled items apart may be too coarse for all of them, and then the
    finer plan is built.

    Plans of a kind are tried from the first on until one reaches the target, but at least
    `IndexKind.min_trials` of them; kinds of last resort only where no other reaches it; exact
    search needs no trial. Costs are extrapolated to all items (`Tunable.cost_us`).

    Args:
        item_ND: float32 [N, D], all items or a sample of them.
        items: number of all items.
        query_BD: float32 [B, D], of which a sample is used.
        plans: those worth trying.
        config: to plan the same candidates for the sample.
        target_recall: recall to tune to.
    """
    sample_SD = sample_rows(item_ND, max(1, min(_ITEMS, items // _SHARE)), seed=0)
    truth = ground_truth(sample_rows(query_BD, _QUERIES, seed=0), sample_SD)
    bench = _TrialBench(truth, items, config, target_recall)
    trials: list[Trial] = []
    for last_resort in (False, True):
        if any(trial.recall >= target_recall for trial in trials):
            break
        kinds = (plan.kind for plan in plans if INDEXES[plan.kind].last_resort == last_resort)
        for name in dict.fromkeys(kinds):
            trials += bench.best([plan for plan in plans if plan.kind == name])
    return by_expected_cost(trials, target_recall)


def is_thin_sample(items: int) -> bool:
    """Whether the sample of `run_trials` may be unlike so many items."""
    return items > _THIN * _ITEMS


def by_expected_cost(trials: list[Trial], target_recall: float) -> list[Trial]:
    """The cheapest search first; plans that are slow to build have to be cheaper by a fifth."""
    least = min((trial.plan.build_seconds for trial in trials if not trial.exact), default=0.0)

    def key(trial: Trial) -> tuple[float, float]:
        missed, figure = trial.sort_key(target_recall)
        slow = not missed and trial.plan.build_seconds > _SLOW_TO_BUILD * least
        return missed, figure / MAX_COST_RATIO if slow else figure

    return sorted(trials, key=key)


@dataclass(frozen=True)
class _TrialBench:
    """Builds and tunes plans over the sample, of `items` items in all."""

    truth: GroundTruth
    items: int
    config: IndexConfig
    target_recall: float

    def best(self, plans: Sequence[Plan]) -> list[Trial]:
        """The best trial of a kind, and the best of a finer plan that reached the target."""
        kind, trials = INDEXES[plans[0].kind], list[Trial]()
        sampled, dim = self.truth.item_ND.shape
        if kind.exact:
            return [Trial(plans[0], 1.0, cost.batched_products(self.items, dim))]
        parameters = kind.candidates(sampled, dim, self.config)
        for tried, plan in enumerate(plans, 1):
            index = kind.build(self.truth.item_ND, parameters[plan.number], seed=0)
            points = tune(index, self.truth, self.target_recall)
            trials += [Trial(plan, point.recall, self._expected_us(point)) for point in points]
            reached = any(trial.recall >= self.target_recall for trial in trials)
            if tried >= kind.min_trials and reached:
                break
        best = min(trials, key=self._sort_key)
        finer = [
            trial
            for trial in trials
            if trial.plan.number < best.plan.number and trial.recall >= self.target_recall
        ]
        return [best, *sorted(finer, key=self._sort_key)[:1]]

    def _sort_key(self, trial: Trial) -> tuple[float, float]:
        return trial.sort_key(self.target_recall)

    def _expected_us(self, point: OperatingPoint[FaissIndex]) -> float:
        """Cost of a search over all items."""
        return point.index.cost_us(self.truth.query_BD, self.truth.k, self.items)
