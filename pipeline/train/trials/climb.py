"""The longer search of `embedmill tune`: the grid over all users, then steps up from its best.

All trials have the same users, so that all can be compared. The settings of the best candidate of
each family are changed one at a time, and a change that is better is kept, until none is: the
best is always known, and the search may be stopped after any trial.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from embedmill.pipeline.config import TrainConfig
from embedmill.pipeline.train.plan import TrainingSize
from embedmill.pipeline.train.trials.candidate import Candidate
from embedmill.pipeline.train.trials.grid import Family, families
from embedmill.pipeline.train.trials.search import (
    Outcome,
    PlannedTrial,
    Selection,
    Steps,
    trial_cost,
    without_trials,
)

__all__ = ["climb"]

_LARGER = 10  # times `trial_events`: a log beyond that is tried on a share of its users
_NEAR = 0.85  # of the best value so far: a family that starts below has no chance


def _times(factor: float, most: float = 1e6) -> Callable[[float], list[float]]:
    """The two neighbours of a value by a factor, in two digits."""
    return lambda value: [
        float(f"{moved:.2g}") for moved in (value * factor, value / factor) if 0 < moved <= most
    ]


def _plus(step: float) -> Callable[[float], list[float]]:
    """The two neighbours of an exponent."""
    return lambda value: [
        round(moved, 2) for moved in (value + step, value - step) if 0 <= moved <= 2
    ]


# The neighbours of each setting, by objective; those that matter most come first.
_MOVES: Mapping[str, Mapping[str, Callable[[float], list[float]]]] = {
    "spectral": {
        "spectral.ridge": _times(2.0),
        "spectral.popularity_power": _plus(0.1),
        "spectral.user_power": _plus(0.1),
        "spectral.item_power": _plus(0.1),
    },
    "ials": {
        "ials.regularization": _times(3.0),
        "ials.unobserved_weight": _times(2.0, most=1.0),
        "ials.regularization_power": _plus(0.25),
    },
    "softmax": {"temperature": _times(1.25), "learning_rate": _times(2.0)},
}


@dataclass(frozen=True)
class _Place:
    """Where the search in a family is."""

    candidate: Candidate
    epochs: int
    value: float = -1.0


class _Climb:
    """What the search knows so far."""

    def __init__(self, auto: TrainConfig, size: TrainingSize) -> None:
        self.auto, self.size = auto, size
        self.share = min(1.0, _LARGER * auto.auto.trial_events / max(1, size.train))
        self.tried: dict[tuple[object, int], _Place] = {}

    def attempt(self, place: _Place) -> Generator[PlannedTrial, Outcome, _Place]:
        """The place with its value, and with the smoothing that a trial found."""
        key = (place.candidate.key, place.epochs)
        if key not in self.tried:
            config = place.candidate.config(self.auto, place.epochs)
            cost = trial_cost(config, place.epochs, self.size, self.share)
            found = yield PlannedTrial(place.candidate, place.epochs, self.share, cost)
            self.tried[key] = _Place(found.candidate, place.epochs, found.value)
        return self.tried[key]

    def neighbours(self, place: _Place, family: Family) -> Iterator[_Place]:
        """Places that differ in one thing: dimension, epochs, or a setting."""
        candidate, epochs = place.candidate, place.epochs
        most = max(candidate.dim, *family.dims[-1:], 1)
        for dim in sorted({most, min(most, 2 * candidate.dim)}, reverse=True):
            if dim > candidate.dim:
                yield _Place(candidate.with_settings(dim=dim), epochs)
        config = candidate.config(self.auto, epochs)
        for path, moves in _MOVES[candidate.objective].items():
            for moved in moves(_value(config, path)):
                settings: dict[str, Any] = {path: moved}
                yield _Place(candidate.with_settings(**settings), epochs)
        if family.epochs > 1:  # a closed form has one
            for number in {min(self.auto.epochs, 2 * epochs), max(1, epochs // 2)} - {epochs}:
                yield _Place(candidate, number)
        if candidate.dim > 1:
            yield _Place(candidate.with_settings(dim=max(1, candidate.dim // 2)), epochs)


def climb(auto: TrainConfig, size: TrainingSize) -> Steps:
    """The trials, one after the other, and at the end the best.

    Args:
        auto: section train; `dim` and `epochs` are the greatest that are allowed.
        size: rows and train events.
    """
    state, starts = _Climb(auto, size), list[tuple[float, Family, _Place]]()
    for family in families(auto, size):
        places = list[_Place]()
        for candidate in family.first:
            places.append((yield from state.attempt(_Place(candidate, family.trial_epochs[0]))))
        best = max(places, key=lambda place: place.value)
        starts.append((best.value / family.early, family, best))
    starts.sort(key=lambda start: -start[0])
    top = _Place(starts[0][2].candidate, starts[0][1].epochs)
    for value, family, place in starts:
        if value < _NEAR * max(top.value, starts[0][0]):
            continue
        reached = yield from _up(state, family, place)
        top = max(top, reached, key=lambda one: one.value)
    if top.value < 0:
        return without_trials(auto, size)  # all diverged
    return Selection(top.candidate, top.epochs)


def _up(state: _Climb, family: Family, start: _Place) -> Generator[PlannedTrial, Outcome, _Place]:
    """From the start, trained for all its epochs, to where no neighbour is better."""
    best = yield from state.attempt(_Place(start.candidate, family.epochs))
    while True:
        before = best
        for neighbour in state.neighbours(before, family):
            # What is better is kept at once: a later change starts from it.
            changed = _merged(before, best, neighbour)
            found = yield from state.attempt(changed)
            if found.value > best.value:
                best = found
        if best is before:
            return best


def _merged(before: _Place, best: _Place, neighbour: _Place) -> _Place:
    """The change from `before` to its neighbour, applied to the best place."""
    old, new = before.candidate, neighbour.candidate
    settings = {k: v for k, v in new.settings.items() if old.settings.get(k) != v}
    dim = new.dim if new.dim != old.dim else best.candidate.dim
    epochs = neighbour.epochs if neighbour.epochs != before.epochs else best.epochs
    return _Place(best.candidate.with_settings(dim=dim, **settings), epochs)


def _value(config: TrainConfig, path: str) -> float:
    """The value of a setting in section train."""
    value: Any = config
    for key in path.split("."):
        value = getattr(value, key)
    return float(value)
