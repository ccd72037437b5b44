"""The stated grid of what objective `auto` tries, by objective, cheapest first."""

from __future__ import annotations

from dataclasses import dataclass

from embedmill.pipeline.config import TrainConfig
from embedmill.pipeline.train.plan import TrainingSize
from embedmill.pipeline.train.trials.candidate import Candidate

__all__ = ["SMOOTHING_WEIGHTS", "Family", "families", "largest"]

_LOW_DIM = 64  # of trials that choose settings which hold for larger dimensions too
# The weight of an unobserved pair grows with the share of pairs that have events: these times it.
# The L2 of a row grows with that weight, so with a small one it is larger.
_UNOBSERVED = {8.0: (0.003, 0.01, 0.03), 4.0: (0.01, 0.03, 0.1), 16.0: (0.003, 0.01, 0.03)}
_POPULARITY = (0.1, 0.2, 0.35)
_RIDGES = (2.0, 8.0)  # sparse logs want less, dense ones more
_TEMPERATURES = (0.12, 0.08, 0.18)
_SWEEPS = 16  # of a training by iALS; more made no difference
_EPOCHS = 10  # of a training by softmax
_STEPS = 400  # of a trial by softmax, at least
# Measured after each trial of an objective that smooths: smoothing does not enter the loss.
SMOOTHING_WEIGHTS = (0.0, 0.25, 0.5, 1.0)


@dataclass(frozen=True)
class Family:
    """Candidates of one objective.

    Args:
        first: are tried first, over few users, in this order.
        dims: larger dimensions that the best of them is then tried with, ascending.
        epochs: of its training, at most.
        trial_epochs: of a trial in the first rounds, and in the last one.
        early: the share of what it reaches in the end that a trial of the first rounds reaches:
            a family that is further behind than that is given up.
        growth: how much more its training reaches than a trial of the last round.
    """

    first: tuple[Candidate, ...]
    dims: tuple[int, ...]
    epochs: int
    trial_epochs: tuple[int, int]
    early: float = 1.0
    growth: float = 1.0


def families(auto: TrainConfig, size: TrainingSize) -> list[Family]:
    """What is tried, in this order.

    Args:
        auto: section train; `dim` and `epochs` are the greatest that are allowed.
        size: rows and train events.
    """
    low = min(auto.dim, _LOW_DIM)
    density = size.train / (size.users * size.items)
    least_squares = tuple(
        Candidate(
            "ials",
            low,
            {"ials.unobserved_weight": _rounded(times * density), "ials.regularization": l2},
        )
        for times, strengths in _UNOBSERVED.items()
        for l2 in strengths
    )
    spectral = tuple(
        Candidate(
            "spectral",
            low,
            {
                "spectral.popularity_power": popularity,
                "spectral.ridge": ridge,
            },
        )
        for popularity in _POPULARITY
        for ridge in _RIDGES
    )
    softmax = tuple(Candidate("softmax", low, {"temperature": t}) for t in _TEMPERATURES)
    steps = -(-size.train // TrainConfig(objective="softmax").batch_size)
    few = max(1, -(-_STEPS // steps))
    larger = (auto.dim,) if auto.dim > low else ()
    sweeps, epochs = min(auto.epochs, _SWEEPS), min(auto.epochs, _EPOCHS)
    return [
        Family(spectral, larger, 1, (1, 1)),
        Family(least_squares, larger, sweeps, (min(sweeps, 3), min(sweeps, 5)), 0.95),
        Family(
            softmax,
            larger,
            epochs,
            (min(epochs, few), min(epochs, 2 * few)),
            early=0.88,
            growth=1.04,
        ),
    ]


def largest(auto: TrainConfig) -> TrainConfig:
    """The config that needs most memory of those that `auto` may choose; others as they are."""
    if auto.objective != "auto":
        return auto
    return Candidate("softmax", auto.dim).config(auto, auto.epochs)


def _rounded(value: float) -> float:
    """Two digits, at most 1: as a person would write it."""
    return float(f"{min(1.0, value):.2g}")
