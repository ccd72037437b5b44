"""Recall@20 of exported vectors by exact search, without the stages index and evaluate."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from embedmill.pipeline.ranking_metrics import metric_sums
from embedmill.pipeline.score import RowLists, top_k
from embedmill.pipeline.store.run import Run
from embedmill.pipeline.views.shards import Shards
from embedmill.pipeline.views.vectors import Vectors

__all__ = ["lists", "recall"]

K = 20


def lists(run: Run, split: str) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Rows of users and items of a split."""
    shards = Shards(run.artifact("shards"))
    user, item = shards.concatenated([split], range(shards.partitions), ["user_row", "item_row"])
    return user, item


def recall(run: Run, users: np.ndarray[Any, Any], user_UD: Any, seen: Any, test: Any) -> float:
    """Recall@20 of some users, by rows of items that they have seen and of their test items."""
    items = Vectors.of(run.artifact("export"), "items")
    wanted, known = (_of(users, pairs) for pairs in (test, seen))
    blocks = ((first, torch.from_numpy(part)) for first, part in items.blocks())
    _, row_Uk = top_k(torch.from_numpy(user_UD), blocks, K, known)
    sums = metric_sums(row_Uk, wanted, (K,))
    return sums[f"recall@{K}"] / int((wanted.lengths > 0).sum())


def _of(users: np.ndarray[Any, Any], pairs: Any) -> RowLists:
    at = np.searchsorted(users, pairs[0])
    at[at == len(users)] = 0
    mine = users[at] == pairs[0]
    return RowLists.of(torch.from_numpy(at[mine]), torch.from_numpy(pairs[1][mine]), len(users))
