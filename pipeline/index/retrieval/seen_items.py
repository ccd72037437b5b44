"""What users have met, by partition of the log.

Legend: B users asked for, U users of a partition, M their events.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from embedmill.pipeline.index.contract import Rows
from embedmill.pipeline.score import RowLists
from embedmill.pipeline.store.artifact import Artifact

__all__ = ["Seen"]

SPLITS = ("train", "valid", "test")
# Pairs held in memory: half a GiB.
_HELD = 1 << 26


@dataclass(frozen=True)
class _Part:
    """A partition: user u has `items[indptr[u] : indptr[u + 1]]`; `known` ones have a vector."""

    users: Rows
    indptr: Rows
    items: Rows
    known: NDArray[np.bool_]


@dataclass
class Seen:
    """Items that users have in the log, in any split; partitions are read when asked for.

    `fitted` are the splits that the model was fitted to: users without events in these have no
    vector of their own.
    """

    shards: Artifact
    fitted: Sequence[str]
    _parts: dict[int, _Part] = field(default_factory=dict)

    def of(self, user_B: Rows) -> tuple[RowLists, NDArray[np.bool_]]:
        """Items of each user, and whether the model was fitted to events of it, bool [B]."""
        partitions = len(self.shards.files("train"))
        known_B = np.zeros(len(user_B), bool)
        owners, rows = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
        for p in np.unique(user_B % partitions).tolist():
            part = self._part(p)
            at = np.flatnonzero(user_B % partitions == p)
            place = np.searchsorted(part.users, user_B[at])
            place[place == len(part.users)] = 0
            met = part.users[place] == user_B[at] if len(part.users) else np.zeros(len(at), bool)
            at, place = at[met], place[met]
            known_B[at] = part.known[place]
            first, count = part.indptr[place], part.indptr[place + 1] - part.indptr[place]
            owners.append(np.repeat(at, count))
            shift = np.repeat(first - (np.cumsum(count) - count), count)
            rows.append(part.items[shift + np.arange(int(count.sum()))])
        owner, row = (torch.from_numpy(np.concatenate(x)) for x in (owners, rows))
        return RowLists.of(owner, row, len(user_B)), known_B

    def _part(self, p: int) -> _Part:
        if p not in self._parts:
            part = _read(self.shards, p, self.fitted)
            while self._parts and len(part.items) + self._pairs() > _HELD:
                self._parts.pop(next(iter(self._parts)))
            self._parts[p] = part
        return self._parts[p]

    def _pairs(self) -> int:
        return sum(len(part.items) for part in self._parts.values())


def _read(shards: Artifact, p: int, fitted: Sequence[str]) -> _Part:
    path = f"part-{p:05d}.parquet"
    user, item, fits = [], [], []
    for split in SPLITS:
        table = shards.read_table(f"{split}/{path}", ["user_row", "item_row"])
        user.append(table["user_row"].to_numpy())
        item.append(table["item_row"].to_numpy())
        fits.append(np.full(table.num_rows, split in fitted))
    user_M, item_M, fits_M = (np.concatenate(x) for x in (user, item, fits))
    order = np.argsort(user_M, kind="stable")
    users, first = np.unique(user_M[order], return_index=True)
    indptr = np.append(first, len(user_M))
    known = np.maximum.reduceat(fits_M[order], first) if len(users) else np.zeros(0, bool)
    return _Part(users, indptr, item_M[order], known)
