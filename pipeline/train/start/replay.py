"""Epochs of a training that starts from an earlier run: new events, and a share of the old ones.

An event is old where the earlier run was trained on it: on an event of the same user and item.
Of several events of a pair, as many are old as that run had, the first ones.

Legend: E events of a partition, M events of the earlier run, K pairs.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from embedmill.pipeline.store.run import Run
from embedmill.pipeline.train.data.examples import Examples
from embedmill.pipeline.train.data.hash_sample import in_sample
from embedmill.pipeline.train.data.train_events import Events, joined
from embedmill.pipeline.train.plan import seed_of
from embedmill.pipeline.train.start.find_start import Start
from embedmill.pipeline.views.earlier_run import earlier_rows
from embedmill.pipeline.views.shards import Shards
from embedmill.pipeline.views.train import Training
from embedmill.pipeline.views.vocabulary import Vocabulary

__all__ = ["replay", "with_new_events"]


def replay(examples: Examples, start: Start, run: Run) -> Examples:
    """The examples, with epochs that take all new events and `train.replay` of the old ones.

    Old events are drawn by a hash of user and item, and others every night.

    Args:
        examples: events of the owned partitions.
        start: the earlier run.
        run: the run that trains.
    """
    share = run.config.train.replay
    if share >= 1:
        return examples
    return replace(examples, replayed=_chosen(examples, start, run, share))


def with_new_events(examples: Examples, start: Start, run: Run) -> Examples:
    """The examples with their new events apart; for the arguments see `replay`."""
    return replace(examples, new=_chosen(examples, start, run, 0.0))


def _chosen(examples: Examples, start: Start, run: Run, share: float) -> Events:
    earlier = _EarlierEvents(start, run)
    salt = seed_of(run.config.run.seed, "replay", start.content)
    parts = list[Events]()
    for part in examples.train.partitions():
        chosen_E = ~earlier.have(part)
        if share > 0:
            key_E = part.user_E.long() * examples.items + part.item_E.long()
            chosen_E |= in_sample(key_E, share, salt)
        parts.append(part.select(chosen_E))
    return joined(parts) if parts else examples.train


class _EarlierEvents:
    """The train events of the earlier run, read a partition at a time."""

    def __init__(self, start: Start, run: Run) -> None:
        sides = [
            [Vocabulary.of(one.artifact("vocab"), side) for one in (run, start.run)]
            for side in ("users", "items")
        ]
        self._user_row, self._item_row = (earlier_rows(now, before) for now, before in sides)
        self._items = sides[1][1].count
        self._shards = Shards(start.run.artifact("shards"))
        refit = Training(start.run.artifact("train")).model.refit
        self._splits = ("train", "valid") if refit else ("train",)

    def have(self, events: Events) -> Tensor:
        """Which events of a partition the earlier run has, bool [E]."""
        user_E = self._user_row[events.user_E.numpy()]
        item_E = self._item_row[events.item_E.numpy()]
        known_E = (user_E >= 0) & (item_E >= 0)
        key_E = np.where(known_E, user_E * self._items + item_E, -1)
        nth_E, old_E = _nth(key_E), np.zeros(len(key_E), bool)
        partition_E = np.where(known_E, user_E % self._shards.partitions, -1)
        for partition in np.unique(partition_E[known_E]).tolist():
            mine = np.flatnonzero(partition_E == partition)
            key_K, count_K = self._pairs(partition)
            at = np.minimum(np.searchsorted(key_K, key_E[mine]), max(0, len(key_K) - 1))
            if len(key_K):
                old_E[mine] = (key_K[at] == key_E[mine]) & (nth_E[mine] < count_K[at])
        return torch.from_numpy(old_E)

    def _pairs(self, partition: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The pairs of a partition, ascending, and how many events each has; int64 [K]."""
        columns = ["user_row", "item_row"]
        user_M, item_M = self._shards.concatenated(self._splits, [partition], columns)
        key_M = user_M.astype(np.int64) * self._items + item_M
        return np.unique(key_M, return_counts=True)


def _nth(key_E: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many events before each one have the same key, int64 [E]."""
    order_E = np.argsort(key_E, kind="stable")
    sorted_E = key_E[order_E]
    first_E = np.searchsorted(sorted_E, sorted_E)
    nth_E = np.empty(len(key_E), np.int64)
    nth_E[order_E] = np.arange(len(key_E)) - first_E
    return nth_E
