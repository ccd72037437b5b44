"""Which trial comes next: successive halving over the grid, from cheap to dear.

A pure function of the results so far, so an interrupted search goes on where it was. All costs
are counted (`counted_cost`): a trial that would exceed the budget is left out.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass

from embedmill.pipeline.config import TrainConfig
from embedmill.pipeline.train.plan import TrainingSize
from embedmill.pipeline.train.trials.candidate import Candidate
from embedmill.pipeline.train.trials.counted_cost import epoch_cost, training_cost, validation_cost
from embedmill.pipeline.train.trials.decomposition import PASSES
from embedmill.pipeline.train.trials.grid import SMOOTHING_WEIGHTS, Family, families

__all__ = [
    "Outcome",
    "PlannedTrial",
    "Selection",
    "Steps",
    "decomposition_key",
    "search",
    "trial_cost",
    "trial_users",
    "without_trials",
]

_SHARE = 1 / 3  # of the users that a trial may have
_LEAST_USERS = 3000  # of a trial, if there are so many
# Events of a trial for each item, at least. With fewer, items look rarer than they are: on a third
# of Gowalla's users, a larger popularity power and half as many dimensions are best.
_ITEM_EVENTS = 250
# A trial is validated on so many users at least, if it may, and scores at most so many pairs.
_VALID_USERS, _VALID_PAIRS = 1000, 10_000_000
# What is dearer must be better by these factors: a larger dimension, or a later family, whose
# training takes several times as long.
_BETTER, _BETTER_FAMILY = 1.005, 1.01
# Trials of a family may cost so much, however short the training: seconds of a core, about.
_FREE = 6.0
# Steps from the best settings of spectral, which cost a validation each: factors of the ridge,
# and what is added to the exponent of popularity.
_RIDGE_STEPS, _POPULARITY_STEPS = (2.0, 0.5), (0.1, -0.1)
_NEAR_ROUNDS = 2


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
        self.tried: dict[tuple[object, int], Outcome] = {}
        self.decomposed: set[object] = set()
        self.free = 0.0  # what the families that were begun may cost in any case
        self.shared = 0.0  # cost of decompositions, which are less than a training
        least = _LEAST_USERS / max(1, size.users)
        least = min(1.0, max(least, _ITEM_EVENTS * size.items / max(1, size.train)))
        most = min(1.0, auto.auto.trial_events / max(1, size.train))
        self.users = min(most, max(least, _SHARE * most))
        self.leader: tuple[float, Family, Candidate] | None = None

    @property
    def best(self) -> float:
        """What the training of the leading candidate is expected to reach; below 0: none leads."""
        return self.leader[0] if self.leader is not None else -1.0

    def bar(self, family: Family) -> float:
        """The best so far, of the family's first dimension where only that counts."""
        if not family.same_dim:
            return self.best
        dim = family.first[0].dim
        others = (
            one.value
            for one in self.tried.values()
            if one.candidate.dim == dim and one.candidate.objective != family.first[0].objective
        )
        return max(others, default=-1.0)

    def beyond(self, family: Family) -> bool:
        """Whether the leader gained from more dimensions than the family may have."""
        return self.leader is not None and self.leader[2].dim > family.greatest_dim

    def full_cost(self, family: Family, candidate: Candidate) -> float:
        """Of the training of a candidate."""
        return training_cost(candidate.config(self.auto, family.epochs), self.size)

    def allowed(self, family: Family) -> float:
        """What all trials may cost: a share of the dearest training that is in the race.

        A closed form that leads is no reason to stop: its training costs less than a trial of
        what may be better. So the training of the family that is tried counts, too. Trials of a
        closed form, which are validations, may cost twice that share of its training.
        """
        budget, cost = self.auto.auto.budget, self._dearest_of(family)
        # Without what trials share, a large decomposition would leave no room for its dimensions.
        return max(self.free + self.shared, budget * max(cost, self.dearest))

    def begin(self, family: Family) -> None:
        """Let a family have its first trials, whatever the others have spent."""
        closed = 2 * self.auto.auto.budget * self._dearest_of(family) if family.epochs == 1 else 0.0
        self.free += max(_FREE, closed)

    def _dearest_of(self, family: Family) -> float:
        return self.full_cost(family, family.first[0].with_settings(dim=family.greatest_dim))

    def round(
        self,
        family: Family,
        candidates: Sequence[Candidate],
        epochs: int,
    ) -> Round:
        """Try some candidates; those that the budget leaves no room for are left out.

        Args:
            family: theirs.
            candidates: in this order.
            epochs: of each.
        """
        outcomes, users = list[Outcome](), self.users
        for candidate in candidates:
            config = candidate.config(self.auto, family.epochs)
            key = (candidate.key, epochs)
            if key in self.tried:
                outcomes.append(self.tried[key])
                continue
            cost = self.cost(candidate, config, epochs)
            first = candidate.objective == "spectral" and not self.decomposed
            if first or self.spent + cost <= self.allowed(family):
                self.spent += cost
                self._share(candidate, cost)
                self.tried[key] = yield PlannedTrial(candidate, epochs, users, cost)
                outcomes.append(self.tried[key])
        return sorted(outcomes, key=lambda one: -one.value)

    def _share(self, candidate: Candidate, cost: float) -> None:
        """Later trials of spectral with the same exponents need no decomposition."""
        if candidate.objective == "spectral":
            key = decomposition_key(candidate)
            self.shared += 0.0 if key in self.decomposed else cost
            self.decomposed.add(key)

    def cost(self, candidate: Candidate, config: TrainConfig, epochs: int) -> float:
        """Of a trial; those of spectral with the same exponents share a decomposition."""
        if candidate.objective != "spectral":
            return trial_cost(config, epochs, self.size, self.users)
        validation = trial_cost(config, 0, self.size, self.users)
        if decomposition_key(candidate) in self.decomposed:
            return validation
        whole = candidate.with_settings(dim=self.auto.dim, **{"spectral.passes": PASSES})
        return validation + self.users * epoch_cost(whole.config(self.auto, 1), self.size)


def decomposition_key(candidate: Candidate) -> tuple[object, ...]:
    """What tells the decompositions of candidates apart: the exponents of the degrees."""
    paths = ("spectral.user_power", "spectral.item_power")
    return candidate.objective, *(candidate.settings.get(path) for path in paths)


def trial_cost(config: TrainConfig, epochs: int, size: TrainingSize, users: float) -> float:
    """The cost of a trial over a share of the users.

    It is validated with each weight of its smoothing; ials after each sweep.
    """
    passes = len(SMOOTHING_WEIGHTS) if config.keys.reads("smoothing") else 1
    passes = epochs if config.objective == "ials" else passes
    validated = config.model_copy(update={"valid_users": trial_users(config, size)})
    return users * epochs * epoch_cost(config, size) + passes * validation_cost(validated, size)


def trial_users(config: TrainConfig, size: TrainingSize) -> int:
    """How many users a trial is validated on: fewer in a large catalogue."""
    return min(config.valid_users, max(_VALID_USERS, _VALID_PAIRS // max(1, size.items)))


def search(auto: TrainConfig, size: TrainingSize) -> Steps:
    """The trials, one after the other, and at the end the choice.

    All have the same users. In each family one candidate is tried first; if it may win, the
    others of its grid, then the best of them with larger dimensions and more epochs.

    Args:
        auto: section train.
        size: rows and train events.
    """
    state = _Search(auto, size)
    for family in families(auto, size):
        if family.tried and not state.beyond(family):
            best = yield from _best_of(state, family)
            value = best.value * family.growth if best is not None else -1.0
            if best is not None and value > _BETTER_FAMILY * max(0.0, state.best):
                state.leader = (value, family, best.candidate)
    if state.leader is None:
        return without_trials(auto, size)
    return Selection(state.leader[2], state.leader[1].epochs)


def _best_of(state: _Search, family: Family) -> Generator[PlannedTrial, Outcome, Outcome | None]:
    """The best outcome of a family; None where it cannot win.

    Where it can, but has not much before the others, one trial is enough.
    """
    state.begin(family)
    early, late = family.trial_epochs
    first = yield from state.round(family, family.first[:1], early)
    bar = state.bar(family)
    if not first or first[0].value < family.early * bar:
        return None
    if first[0].value < family.wide * bar:
        return first[0]
    state.dearest = state.allowed(family) / state.auto.auto.budget
    first = yield from state.round(family, family.first, early)
    if family.epochs == 1:
        return (yield from _best_decomposed(state, family, first[0]))
    last = list[Outcome]()
    for dim in reversed(_larger(state, family) or (first[0].candidate.dim,)):
        if not last:  # the budget had no room for more dimensions
            larger = [first[0].candidate.with_settings(dim=dim)]
            last = yield from state.round(family, larger, late)
    # With fewer epochs a trial is no better, except for ials, where they are counted.
    return max([*last, first[0]], key=lambda one: one.value)


def _larger(state: _Search, family: Family) -> tuple[int, ...]:
    """The larger dimensions to try: where dimensions are compared, those that helped before."""
    if not family.same_dim or state.leader is None:
        return family.dims
    return tuple(dim for dim in family.dims if dim <= state.leader[2].dim)


def _best_decomposed(
    state: _Search, family: Family, best: Outcome
) -> Generator[PlannedTrial, Outcome, Outcome]:
    """The best outcome of spectral: larger dimensions while they help, then its neighbours."""
    for dim in family.dims:
        settings = (best.candidate, *family.larger)
        larger = {one.with_settings(dim=dim).key: one.with_settings(dim=dim) for one in settings}
        found = yield from state.round(family, list(larger.values()), 1)
        if not found or found[0].value < best.value:
            break
        if found[0].value > _BETTER * best.value:
            best = found[0]
    for _ in range(_NEAR_ROUNDS):
        near = yield from state.round(family, list(_near(best.candidate)), 1)
        if not near or near[0].value <= _BETTER * best.value:
            break
        best = near[0]
    return best


def _near(best: Candidate) -> Iterator[Candidate]:
    """Candidates of spectral that differ in one thing from the best one."""
    settings = best.settings
    for factor in _RIDGE_STEPS:
        yield best.with_settings(**{"spectral.ridge": factor * settings["spectral.ridge"]})
    for step in _POPULARITY_STEPS:
        power = round(settings["spectral.popularity_power"] + step, 2)
        if power >= 0:
            yield best.with_settings(**{"spectral.popularity_power": power})


def without_trials(auto: TrainConfig, size: TrainingSize) -> Selection:
    """The choice where there is nothing to validate on: ials with the first of its grid."""
    family = next(one for one in families(auto, size) if one.first[0].objective == "ials")
    middle = family.first[0]
    dim = max(middle.dim, *family.dims[-1:], 1)
    return Selection(middle.with_settings(dim=dim), family.epochs)
