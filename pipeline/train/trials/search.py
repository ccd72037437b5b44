"""Which trial comes next: successive halving over the grid, from cheap to dear.

A pure function of the results so far, so an interrupted search goes on where it was. All costs
are counted (`counted_cost`): a trial that would exceed the budget is left out.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass

from embedmill.pipeline.config import TrainConfig
from embedmill.pipeline.train.plan import TrainingSize
from embedmill.pipeline.train.trials.candidate import Candidate
from embedmill.pipeline.train.trials.counted_cost import epoch_cost, training_cost, validation_cost
from embedmill.pipeline.train.trials.grid import SMOOTHING_WEIGHTS, Family, families

__all__ = [
    "Outcome",
    "PlannedTrial",
    "Selection",
    "Steps",
    "search",
    "trial_cost",
    "without_trials",
]

_FIRST_SHARE, _LAST_SHARE = 0.25, 0.5  # of the users, in the first and in later rounds
_LEAST_USERS = 2000  # of a trial, if there are so many
_KEPT = 2  # candidates of a family after the first round
# A search may cost so much, however short the training: seconds, about.
_FREE = 15.0


@dataclass(frozen=True)
class PlannedTrial:
    """A trial to be run: `epochs` of a candidate on the events of a share of the users."""

    candidate: Candidate
    epochs: int
    users: float
    cost: float


@dataclass(frozen=True)
class Outcome:
    """What a trial gave: the metric, with the best smoothing weight in the candidate."""

    candidate: Candidate
    value: float


@dataclass(frozen=True)
class Selection:
    """The candidate to train, and its epochs, at most."""

    candidate: Candidate
    epochs: int


Round = Generator[PlannedTrial, Outcome, list[Outcome]]
Steps = Generator[PlannedTrial, Outcome, Selection]


class _Search:
    """What the search has spent and found so far."""

    def __init__(self, auto: TrainConfig, size: TrainingSize) -> None:
        self.auto, self.size = auto, size
        self.spent = 0.0
        self.dearest = 0.0  # cost of the dearest training of the families in the race
        self.tried: dict[tuple[object, int, float], Outcome] = {}
        self.most = min(1.0, auto.auto.trial_events / max(1, size.train))
        self.best_first = -1.0  # of the first rounds of all families
        self.leader: tuple[float, Family, Candidate] | None = None

    def full_cost(self, family: Family, candidate: Candidate) -> float:
        """Of the training of a candidate."""
        return training_cost(candidate.config(self.auto, family.epochs), self.size)

    def allowed(self, family: Family, *, contender: bool) -> float:
        """What all trials may cost: a share of the dearest training that is in the race.

        A closed form that leads is no reason to stop: its training costs less than a trial of
        what may be better.

        Args:
            family: of the next trials.
            contender: whether one of them may become the best: its training counts from now on.
        """
        if contender or not self.dearest:
            dim = family.dims[-1] if family.dims else family.first[0].dim
            cost = self.full_cost(family, family.first[0].with_settings(dim=dim))
            self.dearest = max(self.dearest, cost)
        return max(_FREE, self.auto.auto.budget * self.dearest)

    def share(self, part: float) -> float:
        """Share of the users of a trial that would use `part` of those that it may."""
        least = min(1.0, _LEAST_USERS / max(1, self.size.users))
        return min(self.most, max(least, part * self.most))

    def may_win(self, value: float, family: Family) -> bool:
        """Whether a value after few epochs is near enough to the best of other families.

        Both are of the first round, in which users and dimensions are equal.
        """
        near = value >= family.early * self.best_first
        self.best_first = max(self.best_first, value)
        return near

    def round(
        self,
        family: Family,
        candidates: Sequence[Candidate],
        epochs: int,
        part: float,
        *,
        contender: bool = False,
    ) -> Round:
        """Try some candidates; those that the budget leaves no room for are left out.

        Args:
            family: theirs.
            candidates: in this order.
            epochs: of each.
            part: of the users that a trial may have, those that these have.
            contender: see `allowed`.
        """
        outcomes, users = list[Outcome](), self.share(part)
        for candidate in candidates:
            config = candidate.config(self.auto, family.epochs)
            key = (candidate.key, epochs, users)
            if key in self.tried:
                outcomes.append(self.tried[key])
                continue
            cost = users * trial_cost(config, epochs, self.size)
            if self.spent + cost <= self.allowed(family, contender=contender):
                self.spent += cost
                self.tried[key] = yield PlannedTrial(candidate, epochs, users, cost)
                outcomes.append(self.tried[key])
        return sorted(outcomes, key=lambda one: -one.value)


def trial_cost(config: TrainConfig, epochs: int, size: TrainingSize) -> float:
    """The cost of a trial over all users: it is validated with each weight of its smoothing."""
    passes = len(SMOOTHING_WEIGHTS) if config.keys.reads("smoothing") else 1
    return epochs * epoch_cost(config, size) + passes * validation_cost(config, size)


def search(auto: TrainConfig, size: TrainingSize) -> Steps:
    """The trials, one after the other, and at the end the choice.

    In each family the first candidates are tried over few users, the best of them over more, and
    the best of these with a larger dimension. Families are compared by their last rounds, which
    have the same users; one that trains slowly gets more epochs while it may still win.

    Args:
        auto: section train.
        size: rows and train events.
    """
    state = _Search(auto, size)
    for family in families(auto, size):
        outcomes = yield from _halve(state, family)
        best = outcomes[0] if outcomes else None
        value = best.value * family.growth if best is not None else -1.0
        if best is not None and (state.leader is None or value > state.leader[0]):
            state.leader = (value, family, best.candidate)
    if state.leader is None:
        return without_trials(auto, size)
    return Selection(state.leader[2], state.leader[1].epochs)


def _halve(state: _Search, family: Family) -> Round:
    """The rounds of a family; returns the outcomes over most users, the best one first."""
    early, late = family.trial_epochs
    first = yield from state.round(family, family.first, early, _FIRST_SHARE)
    if not first or not state.may_win(first[0].value, family):
        return []
    kept = [one.candidate for one in first[:_KEPT]]
    last = yield from state.round(family, kept, early, _LAST_SHARE, contender=True)
    if not last:
        return []
    best = last[0].candidate
    dims = [best.with_settings(dim=dim) for dim in (best.dim, *family.dims)]
    final = yield from state.round(family, dims, late, _LAST_SHARE, contender=True)
    return final or last


def without_trials(auto: TrainConfig, size: TrainingSize) -> Selection:
    """The choice where there is nothing to validate on: ials with the middle of its grid."""
    family = next(one for one in families(auto, size) if one.first[0].objective == "ials")
    middle = family.first[len(family.first) // 2]
    return Selection(middle.with_settings(dim=auto.dim), family.epochs)
