"""Optimizers that touch only the rows of a batch, and learning-rate schedules.

Legend: L rows that this worker owns, G distinct rows of the batch, D columns, C groups of
columns (the vector, and the bias where there is one).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

__all__ = ["OPTIMIZERS", "SCHEDULES", "Optimizer", "Update"]

_EPSILON = 1e-8


@dataclass(frozen=True)
class Update:
    """One update: rows, their gradient, the learning rate, and the step, counted from 1.

    An optimizer may write into `gradient_GD`: its values are lost afterwards.
    """

    local_G: Tensor
    gradient_GD: Tensor
    learning_rate: float
    step: int


@dataclass(frozen=True)
class Optimizer:
    """The state that an optimizer keeps for a table, and its update rule.

    `state(width, columns)` returns the width of each state tensor by name; they start at zero.
    `update(weight_LD, state, columns, update)` changes the rows and their state in place.
    `columns` are groups of the table's `width` columns that are scaled separately.
    """

    state: Callable[[int, tuple[slice, ...]], dict[str, int]]
    update: Callable[[Tensor, dict[str, Tensor], tuple[slice, ...], Update], None]


def _adagrad_state(width: int, columns: tuple[slice, ...]) -> dict[str, int]:
    return {"squares": len(columns)}


def _adagrad(
    weight_LD: Tensor, state: dict[str, Tensor], columns: tuple[slice, ...], update: Update
) -> None:
    """Row-wise Adagrad: one accumulator per row and group, of mean squared gradients.

    Duchi et al. 2011, in the row-wise form of DLRM (Naumov et al. 2019) and FBGEMM.
    """
    rows, gradient_GD, rate = update.local_G, update.gradient_GD, update.learning_rate
    squares_GC = state["squares"].index_select(0, rows)
    for at, group in enumerate(columns):
        gradient = gradient_GD[:, group]
        squares_GC[:, at] += gradient.square().mean(1)
        gradient.mul_((squares_GC[:, at].sqrt().add_(_EPSILON).reciprocal_() * -rate)[:, None])
    state["squares"].index_copy_(0, rows, squares_GC)
    weight_LD.index_add_(0, rows, gradient_GD)


def _adam_state(width: int, columns: tuple[slice, ...]) -> dict[str, int]:
    return {"first": width, "second": width}


def _adam(
    weight_LD: Tensor, state: dict[str, Tensor], columns: tuple[slice, ...], update: Update
) -> None:
    """Adam on the rows of the batch alone (as `torch.optim.SparseAdam`), Kingma and Ba 2015."""
    rows, gradient_GD = update.local_G, update.gradient_GD
    first_GD = state["first"].index_select(0, rows).lerp_(gradient_GD, 1 - 0.9)
    second_GD = state["second"].index_select(0, rows).mul_(0.999)
    second_GD.addcmul_(gradient_GD, gradient_GD, value=1 - 0.999)
    state["first"].index_copy_(0, rows, first_GD)
    state["second"].index_copy_(0, rows, second_GD)
    rate = update.learning_rate * math.sqrt(1 - 0.999**update.step) / (1 - 0.9**update.step)
    change_GD = first_GD.div_(second_GD.sqrt_().add_(_EPSILON))
    weight_LD.index_add_(0, rows, change_GD, alpha=-rate)


OPTIMIZERS: dict[str, Optimizer] = {
    "adagrad": Optimizer(_adagrad_state, _adagrad),
    "adam": Optimizer(_adam_state, _adam),
}


def _constant(progress: float) -> float:
    return 1.0


def _linear(progress: float) -> float:
    return 1.0 - progress


def _cosine(progress: float) -> float:
    return 0.5 * (1.0 + math.cos(math.pi * progress))


# Factor of the learning rate by the share of steps that are done, after warm-up.
SCHEDULES: dict[str, Callable[[float], float]] = {
    "constant": _constant,
    "linear": _linear,
    "cosine": _cosine,
}
