"""Items that users have events with, read from the partitions of the log on demand.

Legend: B users asked for, U users of a partition, M events of a partition.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from embedmill.pipeline.index.excluded_rows import ExcludedRows
from embedmill.pipeline.index.searchable import Rows
from embedmill.pipeline.views.shards import Shards
from embedmill.schemas.shards import SPLITS

__all__ = ["SeenItems"]

# Events in memory at most: half a GiB.
_MAX_EVENTS = 1 << 26


@dataclass(frozen=True)
class _Partition:
    """Items of user u: `item_M[indptr[u] : indptr[u + 1]]`; `trained_U`: users with a vector."""

    user_U: Rows
    indptr: Rows
    item_M: Rows
    trained_U: NDArray[np.bool_]


@dataclass
class SeenItems:
    """Items that users have events with, in any split; partitions are read when asked for.

    `fitted` are the splits that the model was trained on: users without events in these have no
    vector.
    """

    shards: Shards
    fitted: Sequence[str]
    _partitions: dict[int, _Partition] = field(default_factory=dict)

    def of(self, user_B: Rows) -> tuple[ExcludedRows, NDArray[np.bool_]]:
        """Item rows of each user, and whether the model was trained on events of it, bool [B]."""
        partitions = self.shards.partitions
        trained_B = np.zeros(len(user_B), bool)
        owners, rows = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
        for number in np.unique(user_B % partitions).tolist():
            partition = self._partition(number)
            here = np.flatnonzero(user_B % partitions == number)
            place = np.searchsorted(partition.user_U, user_B[here])
            place[place == len(partition.user_U)] = 0
            has_events = np.zeros(len(here), bool)
            if len(partition.user_U):
                has_events = partition.user_U[place] == user_B[here]
            here, place = here[has_events], place[has_events]
            trained_B[here] = partition.trained_U[place]
            first = partition.indptr[place]
            count = partition.indptr[place + 1] - first
            owners.append(np.repeat(here, count))
            shift = np.repeat(first - (np.cumsum(count) - count), count)
            rows.append(partition.item_M[shift + np.arange(int(count.sum()))])
        owner, row = np.concatenate(owners), np.concatenate(rows)
        return ExcludedRows.of(owner, row, len(user_B)), trained_B

    def _partition(self, number: int) -> _Partition:
        if number not in self._partitions:
            partition = _read(self.shards, number, self.fitted)
            while self._partitions and len(partition.item_M) + self._events() > _MAX_EVENTS:
                self._partitions.pop(next(iter(self._partitions)))
            self._partitions[number] = partition
        return self._partitions[number]

    def _events(self) -> int:
        return sum(len(partition.item_M) for partition in self._partitions.values())


def _read(shards: Shards, number: int, fitted: Sequence[str]) -> _Partition:
    user, item, in_training = [], [], []
    for split in SPLITS:
        user_row, item_row = shards.read(split, number, ["user_row", "item_row"])
        user.append(user_row)
        item.append(item_row)
        in_training.append(np.full(len(user_row), split in fitted))
    user_M, item_M, in_training_M = (np.concatenate(x) for x in (user, item, in_training))
    order = np.argsort(user_M, kind="stable")
    user_U, first = np.unique(user_M[order], return_index=True)
    indptr = np.append(first, len(user_M))
    trained_U = np.zeros(0, bool)
    if len(user_U):
        trained_U = np.maximum.reduceat(in_training_M[order], first)
    return _Partition(user_U, indptr, item_M[order], trained_U)
