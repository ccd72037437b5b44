"""RMSE and MAE of predicted ratings, beside predictions that need no model.

Legend: U users of a group, M test events, D coordinates.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from embedmill.pipeline.evaluate.holdout import FittedItems, Group
from embedmill.pipeline.views.vectors import Vectors

__all__ = ["BASELINES", "Errors", "predict"]

Doubles = NDArray[np.float64]

# Predictions without a model: the mean weight of all events that the model was fitted to, of those
# of the item, and of those of the user. An item without such events gets the mean of all.
BASELINES = ("mean_baseline", "item_mean_baseline", "user_mean_baseline")

_CHUNK = 1 << 16


class Errors:
    """Sums of squared and absolute errors of several predictors over the same events."""

    def __init__(self) -> None:
        self.events = 0
        self.squares = dict.fromkeys(("", *BASELINES), 0.0)
        self.sizes = dict.fromkeys(("", *BASELINES), 0.0)

    def add(self, group: Group, rating_M: Doubles, fitted: FittedItems) -> None:
        """Count a group's test events.

        Args:
            group: the events.
            rating_M: what the model predicts, float64 [M]; not clipped to any scale.
            fitted: what the model was fitted to, for the baselines.
        """
        test = group.test
        item_N = np.where(
            fitted.counts > 0,
            fitted.weights / np.maximum(fitted.counts, 1),
            fitted.mean,
        )
        count_U = np.bincount(group.fitted.user, minlength=len(group.users))
        sum_U = np.bincount(group.fitted.user, group.fitted.weight, len(group.users))
        user_U = sum_U / np.maximum(count_U, 1)
        predicted = {
            "": rating_M,
            "mean_baseline": np.full(len(test.weight), fitted.mean),
            "item_mean_baseline": item_N[test.item],
            "user_mean_baseline": user_U[test.user],
        }
        self.events += len(test.weight)
        for name, value_M in predicted.items():
            self.squares[name] += float(np.square(value_M - test.weight).sum())
            self.sizes[name] += float(np.abs(value_M - test.weight).sum())

    def take_figures(self) -> Errors:
        """What was added up, and begin anew."""
        taken = Errors()
        taken.events, taken.squares, taken.sizes = self.events, self.squares, self.sizes
        self.events = 0
        self.squares = dict.fromkeys(self.squares, 0.0)
        self.sizes = dict.fromkeys(self.sizes, 0.0)
        return taken

    def add_figures(self, taken: Errors) -> None:
        """Add what another one has added up."""
        self.events += taken.events
        for name in self.squares:
            self.squares[name] += taken.squares[name]
            self.sizes[name] += taken.sizes[name]

    def means(self) -> dict[str, float]:
        """`rmse`, `mae`, and the same of each baseline as `rmse.mean_baseline`."""
        if not self.events:
            return {}
        found: dict[str, float] = {}
        for name in ("", *BASELINES):
            tail = f".{name}" if name else ""
            found[f"rmse{tail}"] = float(np.sqrt(self.squares[name] / self.events))
            found[f"mae{tail}"] = self.sizes[name] / self.events
        return found


def predict(group: Group, user_UD: NDArray[np.float32], base_U: Doubles, items: Vectors) -> Doubles:
    """Ratings of the group's test events: base (mean and user bias) plus inner product.

    Args:
        group: the events.
        user_UD: float32 [U, D], vectors of the group's users.
        base_U: float64 [U], mean plus the user's bias.
        items: the item vectors; each is read once.

    Returns:
        float64 [M].
    """
    rating_M = base_U[group.test.user]
    for first, item_ND in items.blocks():
        at = np.flatnonzero((group.test.item >= first) & (group.test.item < first + len(item_ND)))
        for start in range(0, len(at), _CHUNK):
            some = at[start : start + _CHUNK]
            left = user_UD[group.test.user[some]].astype(np.float64)
            right = item_ND[group.test.item[some] - first].astype(np.float64)
            rating_M[some] += np.einsum("md,md->m", left, right)
    return rating_M
