"""Ranking metrics of several recommenders over the same users, and by popularity of items.

Legend: B users of a batch, K answers each, N items, M live ones, S
slices.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from embedmill.pipeline.evaluate.exposure import EXPOSURE_METRICS, Answered, Exposure
from embedmill.pipeline.mean_intervals import mean_interval
from embedmill.pipeline.ranking_metrics import (
    METRICS,
    PRECISION_METRICS,
    user_metrics,
    user_precision,
)
from embedmill.pipeline.score import RowLists, hits, widths

__all__ = ["RANKING_METRICS", "USER_METRICS", "Popularity", "Slices", "Tally", "TallyFigures"]

USER_METRICS = (*METRICS, *PRECISION_METRICS)  # means over users
RANKING_METRICS = (*USER_METRICS, *EXPOSURE_METRICS)

Rows = NDArray[np.int64]
Flags = NDArray[np.bool_]


class Popularity:
    """Recommends the live items with most events, equal ones by lower row."""

    def __init__(self, count_N: Rows, live_N: Flags) -> None:
        order_M = _by_count(count_N, live_N)
        self.order_N = torch.from_numpy(order_M)
        # Others come after all.
        self.place_N = torch.full((len(count_N),), len(order_M))
        self.place_N[self.order_N] = torch.arange(len(order_M))

    def top(self, k: int, seen: RowLists) -> Tensor:
        """The k most popular items outside each list, int64 [B, k], -1 where none is left."""
        found_BK = torch.full((len(seen.lengths), k), -1, dtype=torch.int64)
        for chosen, width in widths(k, seen, len(self.order_N)):
            rows_CK = self._within(width, k, seen.select(chosen))
            found_BK[chosen, : rows_CK.shape[1]] = rows_CK
        return found_BK

    def _within(self, width: int, k: int, seen: RowLists) -> Tensor:
        """The answers of users who find theirs among the `width` most popular items."""
        struck_BK = torch.zeros(len(seen.lengths), width, dtype=torch.bool)
        place = self.place_N[seen.rows]
        near = place < width
        struck_BK[seen.users()[near], place[near]] = True
        # Stable: what is left keeps its order.
        order_BK = struck_BK.to(torch.uint8).argsort(dim=1, stable=True)[:, :k]
        return self.order_N[order_BK].masked_fill(struck_BK.gather(1, order_BK), -1)


@dataclass(frozen=True)
class Slices:
    """Items from the most to the least popular, cut into parts of equal train events.

    `of_item` is the slice of each item, int64 [N]; items that the model was never fitted to
    are in a slice of their own, the last, and so are those that are not live, uncounted.
    """

    names: tuple[str, ...]
    of_item: Tensor
    items: Tensor
    train_events: Tensor

    @staticmethod
    def cut(count_N: Rows, live_N: Flags, slices: int) -> Slices:
        """Slices by how many events the model was fitted to."""
        order_M, count_N = _by_count(count_N, live_N), count_N * live_N
        before_M = np.cumsum(count_N[order_M]) - count_N[order_M]
        total = max(1, int(count_N.sum()))
        of_item = np.full(len(count_N), slices)
        of_item[order_M] = np.minimum(before_M * slices // total, slices - 1)
        of_item[count_N == 0] = slices
        names = (
            ("head", "middle", "tail")
            if slices == 3
            else tuple(f"{i + 1} of {slices}" for i in range(slices))
        )
        which = torch.from_numpy(of_item)
        return Slices(
            (*names, "never trained on"),
            which,
            torch.bincount(which[torch.from_numpy(live_N)], minlength=slices + 1),
            torch.bincount(which, torch.from_numpy(count_N).double(), slices + 1).long(),
        )


def _by_count(count_N: Rows, live_N: Flags) -> Rows:
    """Live rows by falling count, equal ones by lower row, int64 [M]."""
    row_M = np.flatnonzero(live_N)
    return row_M[np.lexsort((row_M, -count_N[row_M]))]


@dataclass(frozen=True)
class TallyFigures:
    """What a `Tally` has added up: of some users, to be added to that of others."""

    sums: dict[str, float]
    squares: dict[str, float]
    found: dict[int, Tensor]
    answered: dict[int, Answered]


class Tally:
    """Adds up one recommender's answers, batch after batch."""

    def __init__(self, ks: Sequence[int], slices: Slices, exposure: Exposure) -> None:
        self.ks = tuple(ks)
        self.slices = slices
        self.exposure = exposure
        self.sums = {f"{name}@{k}": 0.0 for k in self.ks for name in USER_METRICS}
        self.squares = dict.fromkeys(self.sums, 0.0)
        self.found = {k: torch.zeros(len(slices.names), dtype=torch.int64) for k in self.ks}

    def add(self, rows_BK: Tensor, relevant: RowLists, ks: Sequence[int] = ()) -> dict[str, Tensor]:
        """Count answers int64 [B, K] to `ks`, all of them if empty; returns metrics by user."""
        hit_BK, ks = hits(rows_BK, relevant), ks or self.ks
        values: dict[str, Tensor] = {}
        for of_users in (user_metrics, user_precision):
            values |= of_users(hit_BK, relevant.lengths, ks)
        for name, value_B in values.items():
            self.sums[name] += float(value_B.sum())
            self.squares[name] += float(value_B.square().sum())
        self.exposure.add(rows_BK, ks)
        for k in ks:
            which = self.slices.of_item[rows_BK[:, :k][hit_BK[:, :k]]]
            self.found[k] += torch.bincount(which, minlength=len(self.slices.names))
        return values

    def take_figures(self) -> TallyFigures:
        """What was added up, and begin anew."""
        taken = TallyFigures(self.sums, self.squares, self.found, self.exposure.take_counts())
        self.sums, self.squares = dict.fromkeys(self.sums, 0.0), dict.fromkeys(self.sums, 0.0)
        self.found = {k: torch.zeros_like(found) for k, found in self.found.items()}
        return taken

    def add_figures(self, taken: TallyFigures) -> None:
        """Add what another one has added up; the order of calls shapes the last bits of sums."""
        for name in self.sums:
            self.sums[name] += taken.sums[name]
            self.squares[name] += taken.squares[name]
        for k in self.ks:
            self.found[k] += taken.found[k]
        self.exposure.add_counts(taken.answered)

    def means(self, users: int) -> dict[str, float]:
        """Mean of every metric over `users`, and how the answers are spread over the items."""
        if not users:
            return {}
        return {name: value / users for name, value in self.sums.items()} | self.exposure.means()

    def intervals(self, users: int) -> dict[str, tuple[float, float]]:
        """The 95 % interval of every metric that is a mean over users; empty for one user."""
        return {
            name: mean_interval(value, self.squares[name], users)
            for name, value in self.sums.items()
            if users > 1
        }
