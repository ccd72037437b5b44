"""Ranking quality of vectors and of item-to-item weights, ours and peers', by the same code.

Legend: B users of a batch, N items, D coordinates, K answers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, load_npz

from embedmill.pipeline.ranking_metrics import metric_sums
from embedmill.pipeline.score import RowLists
from embedmill.pipeline.store.run import Run

__all__ = ["Holdout", "Scorer", "item_scorer", "pairs_of", "vector_scorer"]

_BATCH = 1024

Rows = NDArray[np.int64]
Floats = NDArray[np.float32]
# Scores of all items for some users, float32 [B, N].
Scorer = Callable[[Rows], Floats]


@dataclass(frozen=True)
class Holdout:
    """Users of a run with events of one split, and the items that are not recommended to them."""

    seen: RowLists
    relevant: RowLists

    @staticmethod
    def of(run: Run, split: str) -> Holdout:
        """Events of earlier splits are seen; held-out events of seen items do not count.

        Users without a train event are left out: no model knows them.
        """
        earlier = {"valid": ("train",), "test": ("train", "valid")}[split]
        counters = run.artifact("vocab").counters
        users, items = counters["users"], counters["items"]
        columns = [
            np.concatenate(c) for c in zip(*(pairs_of(run, s) for s in earlier), strict=True)
        ]
        user, item = pairs_of(run, split)
        fresh = ~np.isin(user * items + item, columns[0] * items + columns[1])
        fresh &= np.isin(user, pairs_of(run, "train")[0])
        seen_user, seen_item = map(torch.from_numpy, columns)
        return Holdout(
            RowLists.of(seen_user, seen_item, users),
            RowLists.of(torch.from_numpy(user[fresh]), torch.from_numpy(item[fresh]), users),
        )

    def quality(self, scorer: Scorer, k: int) -> dict[str, float]:
        """Means of "recall@k" and "ndcg@k" over the users, over all items but seen ones."""
        measured = (self.relevant.lengths > 0).nonzero()[:, 0]
        names = (f"recall@{k}", f"ndcg@{k}")
        sums = dict.fromkeys(names, 0.0)
        for batch in measured.split(_BATCH):
            score_BN = torch.from_numpy(scorer(batch.numpy()))
            seen = self.seen.select(batch)
            score_BN[seen.users(), seen.rows] = -torch.inf
            found = metric_sums(score_BN.topk(k, dim=1).indices, self.relevant.select(batch), [k])
            sums = {name: sums[name] + found[name] for name in names}
        return {name: value / max(1, len(measured)) for name, value in sums.items()}


def pairs_of(run: Run, split: str) -> tuple[Rows, Rows]:
    """User and item rows of a split's events."""
    table = run.artifact("shards").read_tables(split, ["user_row", "item_row"])
    user, item = (table[name].to_numpy() for name in ("user_row", "item_row"))
    return user, item


def vector_scorer(user_UD: Floats, item_ND: Floats) -> Scorer:
    """Inner products."""
    return lambda rows: user_UD[rows] @ item_ND.T


def item_scorer(path: Path, user: Rows, item: Rows, shape: tuple[int, int]) -> Scorer:
    """Sums of item-to-item weights over a user's items.

    Args:
        path: weights [N, N], column by column those of an item: dense (`.npy`) or CSR (`.npz`).
        user: rows of the pairs that the weights were fitted to.
        item: their items' rows.
        shape: number of users and of items.
    """
    weight_NN = np.load(path) if path.suffix == ".npy" else load_npz(path)
    ones = np.ones(len(user), np.float32)
    pairs = csr_matrix((ones, (user, item)), shape=shape)
    pairs.data[:] = 1

    def scores(rows: Rows) -> Floats:
        found = pairs[rows] @ weight_NN
        return np.asarray(found.todense() if hasattr(found, "todense") else found, np.float32)

    return scores
