"""Users drawn from a power-law log, and the quality of what any tool recommends to them, by ids.

Legend: U users, N items, D coordinates, k answers, M events.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray

from embedmill.pipeline.prepare.hashing import mix64
from embedmill.pipeline.ranking_metrics import metric_sums
from embedmill.pipeline.score import RowLists, top_k
from harness.power_law_log import ids_of

__all__ = ["DrawnUsers", "places_from_end"]

K = 20
_SPARE = 3  # candidates for each user: some have no events, or too few to hold any out

Rows = NDArray[np.int64]


def places_from_end(user: Rows, item: Rows, time: Rows) -> tuple[Rows, Rows]:
    """Distinct events in order of user and time, and how many events of its user follow each.

    Args:
        user: int64 [M].
        item: int64 [M].
        time: int64 [M].

    Returns:
        int64 [M, 3] of user, time and item, and int64 [M], 0 for the last event of a user.
    """
    event_M3 = np.unique(np.stack([user, time, item], axis=1), axis=0)
    ends = np.searchsorted(event_M3[:, 0], event_M3[:, 0], side="right")
    return event_M3, ends - 1 - np.arange(len(event_M3))


@dataclass(frozen=True)
class DrawnUsers:
    """Users with more than two events, whose last one is to be found.

    Attributes:
        ids: of the users, string [U].
        item_ids: of all items, string [N].
        test: row of the item of the last event of each user, int64 [U].
        seen: rows of the items of all events before it.
        relevant: the last item, where it was not seen before.
    """

    ids: pa.Array
    item_ids: pa.Array
    test: Rows
    seen: RowLists
    relevant: RowLists

    @staticmethod
    def of(log: Path, sizes: tuple[int, int], count: int) -> DrawnUsers:
        """Draw users by a hash of their rank.

        Args:
            log: folder of a log by `written_log`.
            sizes: number of users and of items it was made with.
            count: of users, fewer where there are not so many.
        """
        order = np.argsort(mix64(np.arange(sizes[0])), kind="stable")[: _SPARE * count]
        ids, item_ids = ids_of("user", order), ids_of("item", np.arange(sizes[1]))
        columns: list[list[Rows]] = [[], [], []]
        for path in sorted(log.glob("*.parquet")):
            table = pq.read_table(path)
            table = table.append_column("at", pc.index_in(table["user"], value_set=ids))
            table = table.filter(pc.is_valid(table["at"]))
            item = pc.index_in(table["item"], value_set=item_ids)
            for column, found in zip(columns, (table["at"], item, table["time"]), strict=True):
                column.append(found.to_numpy().astype(np.int64))
        event_M3, from_end_M = places_from_end(*(np.concatenate(column) for column in columns))
        chosen = np.unique(event_M3[from_end_M == 2, 0])[:count]
        kept = np.isin(event_M3[:, 0], chosen)
        user, _, item = event_M3[kept].T
        user, last = np.searchsorted(chosen, user), from_end_M[kept] == 0
        seen = _lists(user[~last], item[~last], len(chosen))
        repeated = np.isin(np.flatnonzero(last), _repeats(user, item, last))
        fresh_user, fresh_item = user[last][~repeated], item[last][~repeated]
        relevant = _lists(fresh_user, fresh_item, len(chosen))
        return DrawnUsers(ids.take(pa.array(chosen)), item_ids, item[last], seen, relevant)

    def agreement(self, held_out: pa.Table) -> float:
        """Share of the users whose test item is the one in columns user, item of a table."""
        user, item = self._rows(held_out)
        right = np.zeros(len(self.ids), bool)
        right[user] = self.test[user] == item
        return float(right.mean())

    def quality(self, recommended: pa.Table) -> dict[str, float]:
        """Means over users with a relevant item, and the share of users with k unseen answers.

        Args:
            recommended: columns user, rank (from 1), item.
        """
        user, item = self._rows(recommended)
        rows_Uk = np.full((len(self.ids), K), -1, np.int64)
        rows_Uk[user, recommended["rank"].to_numpy() - 1] = item
        answer, width = _lists(user, item, len(self.ids)), len(self.item_ids)
        seen_keys, keys = (one.users() * width + one.rows for one in (self.seen, answer))
        fresh = answer.users()[~torch.isin(keys, seen_keys)].bincount(minlength=len(self.ids))
        return self._means(rows_Uk) | {"answered": float((fresh == K).double().mean())}

    def exact_quality(self, users: pa.Table, items: pa.Table) -> dict[str, float]:
        """The same means by exact search of vectors, in columns id and vector."""
        user_UD, _ = _matrix(users, self.ids)
        item_ND, known_N = _matrix(items, self.item_ids)
        barred = torch.from_numpy(np.flatnonzero(~known_N))
        blocks = [(0, torch.from_numpy(item_ND))]
        _, rows_Uk = top_k(torch.from_numpy(user_UD), blocks, K, self.seen, barred)
        return self._means(rows_Uk.numpy())

    def _means(self, rows_Uk: Rows) -> dict[str, float]:
        sums = metric_sums(torch.from_numpy(rows_Uk), self.relevant, [K])
        asked = int((self.relevant.lengths > 0).sum())
        return {name: sums[name] / max(1, asked) for name in (f"recall@{K}", f"ndcg@{K}")}

    def _rows(self, table: pa.Table) -> tuple[Rows, Rows]:
        user, item = (
            pc.index_in(table[name], value_set=ids).to_numpy().astype(np.int64)
            for name, ids in (("user", self.ids), ("item", self.item_ids))
        )
        return user, item


def _lists(user: Rows, row: Rows, count: int) -> RowLists:
    return RowLists.of(torch.from_numpy(user.copy()), torch.from_numpy(row.copy()), count)


def _repeats(user: Rows, item: Rows, last: NDArray[np.bool_]) -> Rows:
    """Places of last events whose item the user has seen before."""
    width = int(item.max(initial=0)) + 1
    keys = user * width + item
    return np.flatnonzero(last & np.isin(keys, keys[~last]))


def _matrix(table: pa.Table, ids: pa.Array) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Vectors of ids in their order, float32 [N, D], zeros where there is none; and which have."""
    at = pc.index_in(ids, value_set=table["id"].combine_chunks())
    known = at.is_valid().to_numpy(zero_copy_only=False)
    found = table.take(at.drop_null())["vector"].combine_chunks().flatten()
    matrix = np.zeros((len(ids), len(found) // max(1, int(known.sum()))), np.float32)
    matrix[known] = found.to_numpy(zero_copy_only=False).reshape(int(known.sum()), -1)
    return matrix, known
