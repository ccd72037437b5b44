"""Each test item ranked among sampled negatives (He et al. 2017, arXiv 1708.05031, section 4.1).

The protocol of NCF and its followers, beside which a figure over the whole catalogue is far lower;
the two order recommenders differently (Krichene and Rendle, KDD 2020), so that neither stands for
the other.

Legend: U users of a group, P test pairs, J negatives of a pair, D coordinates, M live items.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from embedmill.pipeline.evaluate.holdout import Group
from embedmill.pipeline.prepare.hashing import mix64

__all__ = [
    "SAMPLED_METRICS",
    "SampledFigures",
    "SampledRanks",
    "rank_sums",
    "sample_negatives",
]

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Rows = NDArray[np.int64]

SAMPLED_METRICS = ("hit_rate", "ndcg", "mrr")

_PAIRS = 512  # ranked at once
_ROUNDS = 100  # of drawing again what a user has events with


@dataclass(frozen=True)
class SampledFigures:
    """What a `SampledRanks` has added up: test pairs, and sums by recommender and metric."""

    pairs: int
    sums: dict[str, dict[str, float]]


class SampledRanks:
    """Adds up the metrics of the model and of popularity over test pairs, group after group."""

    def __init__(self, ks: Sequence[int], negatives: int, seed: int, counts: Rows, live: Rows):
        """Begin without pairs.

        Args:
            ks: lengths of lists.
            negatives: for each test item.
            seed: of the draw.
            counts: events of each item that the model was fitted to, int64 [N].
            live: rows of the items that can be recommended, int64 [M].
        """
        self._ks, self._negatives, self._seed = tuple(ks), negatives, seed
        self._counts, self._live = counts, live
        self.pairs = 0
        names = [f"{name}@{k}" for k in self._ks for name in SAMPLED_METRICS]
        self._sums = {who: dict.fromkeys(names, 0.0) for who in ("", "popularity.")}

    def add(self, group: Group, user_UD: Floats, gather: Callable[[Rows], Floats]) -> None:
        """Rank the group's test items.

        Args:
            group: the users.
            user_UD: float32 [U, D], their vectors.
            gather: vectors of items by row.
        """
        user_P, item_P = group.relevant.users().numpy(), group.relevant.rows.numpy()
        for start in range(0, len(user_P), _PAIRS):
            some = slice(start, start + _PAIRS)
            user, item = user_P[some], item_P[some]
            row_PJ, drawn_PJ = sample_negatives(
                group, user, item, self._live, (self._negatives, self._seed)
            )
            every_PJ = np.concatenate((item[:, None], row_PJ), axis=1)
            row_R, at = np.unique(every_PJ, return_inverse=True)
            item_PJD = gather(row_R)[at.reshape(every_PJ.shape)]
            score_PJ = np.einsum("pd,pjd->pj", user_UD[user], item_PJD)
            self._count("", score_PJ, drawn_PJ)
            self._count("popularity.", self._counts[every_PJ].astype(np.float64), drawn_PJ)
            self.pairs += len(user)

    def _count(self, who: str, score_PJ: Doubles | Floats, drawn_PJ: NDArray[np.bool_]) -> None:
        ahead_P = ((score_PJ[:, 1:] >= score_PJ[:, :1]) & drawn_PJ).sum(axis=1)
        for name, value in rank_sums(ahead_P + 1, self._ks).items():
            self._sums[who][name] += value

    def take_figures(self) -> SampledFigures:
        """What was added up, and begin anew."""
        taken = SampledFigures(self.pairs, self._sums)
        self.pairs = 0
        self._sums = {who: dict.fromkeys(sums, 0.0) for who, sums in self._sums.items()}
        return taken

    def add_figures(self, taken: SampledFigures) -> None:
        """Add what another one has added up."""
        self.pairs += taken.pairs
        for who, sums in taken.sums.items():
            for name, value in sums.items():
                self._sums[who][name] += value

    def means(self) -> dict[str, float]:
        """Means over the test pairs; empty without any."""
        if not self.pairs:
            return {}
        return {
            f"{who}{name}": value / self.pairs
            for who, sums in self._sums.items()
            for name, value in sums.items()
        }


def rank_sums(rank_P: Rows, ks: Sequence[int]) -> dict[str, float]:
    """Sums over pairs of the metrics of a single relevant item by its rank, 1 for the first.

    Hit rate is 1 where the rank is at most k, NDCG 1 / log2(rank + 1), MRR 1 / rank; else 0.
    """
    sums = {}
    for k in ks:
        rank = rank_P[rank_P <= k].astype(np.float64)
        sums[f"hit_rate@{k}"] = float(len(rank))
        sums[f"ndcg@{k}"] = float((1 / np.log2(rank + 1)).sum())
        sums[f"mrr@{k}"] = float((1 / rank).sum())
    return sums


def sample_negatives(
    group: Group, user_P: Rows, item_P: Rows, live_M: Rows, draw: tuple[int, int]
) -> tuple[Rows, NDArray[np.bool_]]:
    """Items drawn uniformly, with replacement, of those that a pair's user has no event with.

    The draw depends on the pair and the seed alone.

    Args:
        group: the users.
        user_P: int64 [P], by place in the group.
        item_P: int64 [P], the test items.
        live_M: int64 [M], the items to draw from.
        draw: number of negatives, and the seed.

    Returns:
        rows int64 [P, J], and whether each was drawn: false only where a user has events with
        (nearly) all items.
    """
    negatives, seed = draw
    width = int(max(live_M.max(initial=0), item_P.max(initial=0))) + 1
    lists = (group.seen, group.relevant)
    own = [one.users().numpy() * width + one.rows.numpy() for one in lists]
    # A seen item beyond all live ones cannot be drawn; its key must not be another user's.
    own = [key[one.rows.numpy() < width] for key, one in zip(own, lists, strict=True)]
    own_keys = np.sort(np.concatenate(own))
    key_P = mix64((mix64(group.users[user_P]) ^ np.uint64(seed)).view(np.int64))
    key_P = mix64((key_P ^ mix64(item_P)).view(np.int64))
    row_PJ = np.zeros((len(user_P), negatives), np.int64)
    drawn_PJ = np.zeros(row_PJ.shape, bool)
    for attempt in range(_ROUNDS):
        pair, column = np.nonzero(~drawn_PJ)
        if not len(pair) or not len(live_M):
            break
        number = (attempt * negatives + column).astype(np.uint64)
        bits = mix64((key_P[pair] + number * np.uint64(0x9E3779B97F4A7C15)).view(np.int64))
        row = live_M[(bits % np.uint64(len(live_M))).astype(np.int64)]
        key = user_P[pair] * width + row
        place = np.minimum(np.searchsorted(own_keys, key), max(0, len(own_keys) - 1))
        free = own_keys[place] != key if len(own_keys) else np.ones(len(key), bool)
        row_PJ[pair[free], column[free]] = row[free]
        drawn_PJ[pair[free], column[free]] = True
    return row_PJ, drawn_PJ
