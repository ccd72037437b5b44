"""The stated grid of what objective `auto` tries, by objective, cheapest first."""

from __future__ import annotations

from dataclasses import dataclass

from embedmill.pipeline.config import TrainConfig
from embedmill.pipeline.train.plan import TrainingSize
from embedmill.pipeline.train.trials.candidate import Candidate

__all__ = ["SMOOTHING_WEIGHTS", "Family", "families", "largest"]

_LOW_DIM = 64  # of trials that choose settings which hold for larger dimensions too
# The weight of an unobserved pair grows with the share of pairs that have events: these times it.
# Then a user's unobserved pairs weigh as many times its events on average, so that L2, as a share
# of the weight of a user's events, is about the same number for all logs: .05 to .1.
_UNOBSERVED = ((8.0, 0.1), (8.0, 0.06), (16.0, 0.06))
# Ridge and popularity power of spectral: sparse logs want less of the first, dense ones more.
_SPECTRAL = ((6.0, 0.2), (2.0, 0.2), (2.0, 0.35), (6.0, 0.1))
# Ridge and popularity power that are tried with each larger dimension, too: more dimensions want
# more ridge on dense logs, and little of it on sparse ones.
_LARGER = {False: ((6.0, 0.2), (12.0, 0.2)), True: ((2.0, 0.2),)}
# The share of pairs that have events: below, a log is sparse. Sparse logs want lower temperatures,
# and softmax never won on a dense one.
_SPARSE = 0.01
_TEMPERATURES = {True: (0.1, 0.08, 0.13), False: (0.15, 0.12, 0.18)}
_TRAINED_DIM = 256  # the greatest dimension of ials and softmax, whose training grows with it
_SWEEPS = 10  # of a training by iALS; more made no difference
_TRIED_SWEEPS = 2  # of a trial: they begin with the vectors of spectral
_EPOCHS = 10  # of a training by softmax
_STEPS = 400  # of a trial by softmax, at least
# Measured after each trial of an objective that smooths: smoothing does not enter the loss.
SMOOTHING_WEIGHTS = (0.0, 0.25, 0.5, 1.0)


@dataclass(frozen=True)
class Family:
    """Candidates of one objective.

    Args:
        first: are tried first, in this order; the others only if the first one may win.
        dims: larger dimensions that the best of them is then tried with, ascending.
        epochs: of its training, at most.
        trial_epochs: of a trial of the first round, and of the last one.
        larger: of a closed form: are tried with each larger dimension, beside the best so far.
        early: the share of what a training reaches that a trial of the first round reaches, at
            least: a family that is further behind the best so far is given up.
        same_dim: whether the best so far of its dimension counts there, not the best of all.
        wide: from this share on, the others of `first` and larger dimensions are tried, too.
        growth: how much more its training reaches than a trial of the last round.
        tried: whether `auto` tries it; `tune` tries all.
    """

    first: tuple[Candidate, ...]
    dims: tuple[int, ...]
    epochs: int
    trial_epochs: tuple[int, int]
    larger: tuple[Candidate, ...] = ()
    early: float = 1.0
    same_dim: bool = False
    wide: float = 0.0
    growth: float = 1.0
    tried: bool = True

    @property
    def greatest_dim(self) -> int:
        """Of its candidates."""
        return self.dims[-1] if self.dims else self.first[0].dim


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
            {
                "ials.unobserved_weight": _rounded(times * density),
                "ials.regularization": _rounded(strength / (1 + times)),
            },
        )
        for times, strength in _UNOBSERVED
    )
    sparse = density < _SPARSE
    softmax = tuple(Candidate("softmax", low, {"temperature": t}) for t in _TEMPERATURES[sparse])
    steps = -(-size.train // TrainConfig(objective="softmax").batch_size)
    few = max(1, -(-_STEPS // steps))
    doubled = tuple(low << n for n in range(1, 12) if low << n < auto.dim)
    every = (*doubled, auto.dim) if auto.dim > low else ()
    larger = tuple(dim for dim in every if dim <= _TRAINED_DIM)
    sweeps, epochs = min(auto.epochs, _SWEEPS), min(auto.epochs, _EPOCHS)
    tried = min(sweeps, _TRIED_SWEEPS)
    return [
        Family(
            tuple(_spectral(low, *one) for one in _SPECTRAL),
            every,
            1,
            (1, 1),
            larger=tuple(_spectral(low, *one) for one in _LARGER[sparse]),
        ),
        Family(least_squares, larger, sweeps, (tried, tried), early=0.98, same_dim=True, wide=1.02),
        Family(
            softmax,
            larger,
            epochs,
            (min(epochs, few), min(epochs, 2 * few)),
            early=0.83,
            growth=1.04,
            tried=sparse,
        ),
    ]


def _spectral(dim: int, ridge: float, popularity: float) -> Candidate:
    settings = {"spectral.popularity_power": popularity, "spectral.ridge": ridge}
    return Candidate("spectral", dim, settings)


def largest(auto: TrainConfig) -> TrainConfig:
    """The config that needs most memory of those that `auto` may choose; others as they are."""
    if auto.objective != "auto":
        return auto
    # A table of softmax and two of its optimizer's state; the decomposition and a trial's copy.
    dim = max(min(auto.dim, _TRAINED_DIM), -(-2 * auto.dim // 3))
    return Candidate("softmax", dim).config(auto, auto.epochs)


def _rounded(value: float) -> float:
    """Two digits, at most 1: as a person would write it."""
    return float(f"{min(1.0, value):.2g}")
