"""Users with test events, a group of partitions at a time.

Legend: U known users of a group, M test events of them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from embedmill.pipeline.prepare.hashing import mix64, to_unit_interval
from embedmill.pipeline.score import RowLists, are_among
from embedmill.pipeline.task_pool import TaskPool
from embedmill.pipeline.views.shards import GROUP_EVENTS, Shards
from embedmill.schemas.export import VectorSpec
from embedmill.schemas.shards import SPLITS

__all__ = [
    "FittedItems",
    "Group",
    "UserSample",
    "count_test_users",
    "group_of",
    "partition_groups",
    "read_fitted_items",
]

Rows = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class FittedItems:
    """Events the model was fitted to, by item: counts int64 [N], sums of weights float64 [N]."""

    counts: Rows
    weights: Floats

    @property
    def mean(self) -> float:
        """Mean weight of these events; 0 if there are none."""
        return float(self.weights.sum() / max(1, self.counts.sum()))


@dataclass(frozen=True)
class Events:
    """Some events: the user's position among the group's users, the item's row, the weight."""

    user: Rows
    item: Rows
    weight: Floats


@dataclass(frozen=True)
class Group:
    """Users of some partitions with test events and with events that the model was fitted to.

    `users` are their rows, rising. `seen` are their items in train and valid, which are no answers;
    `relevant` are their items in test that are not seen. `fitted` are their events that the model
    was fitted to, `test` their test events. `cold_users` counts users with test events but no
    fitted ones, who have no vector of their own and are left out; `cold_events` counts their test
    events. `repeats` counts test pairs whose item is seen. `folded_in` has the cold users as a
    group, where it was asked for: a share of their test events are its `fitted` events and are
    seen, the rest is test. `unsampled_users` counts users with test events who were not drawn, and
    `unsampled_events` their test events.
    """

    users: Rows
    seen: RowLists
    relevant: RowLists
    fitted: Events
    test: Events
    cold_users: int
    cold_events: int
    repeats: int
    folded_in: Group | None = None
    unsampled_users: int = 0
    unsampled_events: int = 0


@dataclass(frozen=True)
class UserSample:
    """Which test users are evaluated: those whose hash is below a share of all hashes."""

    share: float
    seed: int

    def of(self, users: Rows) -> NDArray[np.bool_]:
        """Whether each user is drawn, bool [U]; by its row and the seed alone."""
        if self.share >= 1:
            return np.ones(len(users), bool)
        keys = users ^ mix64(np.array([self.seed], np.int64)).view(np.int64)
        return to_unit_interval(mix64(keys).view(np.int64)) < self.share


def read_fitted_items(shards: Shards, spec: VectorSpec, pool: TaskPool) -> FittedItems:
    """Events and weights of every item in the splits that the model was fitted to.

    Args:
        shards: their events.
        spec: says how many items there are, and which splits.
        pool: counts partitions; they are added up in order.
    """
    counts, weights = np.zeros(spec.items, np.int64), np.zeros(spec.items)
    tasks = (
        _CountTask(shards, split, partition, spec.items)
        for split in spec.fitted
        for partition in range(shards.partitions)
    )
    for one in pool.map(_count_items, tasks):
        counts[one.row_M] += one.count_M
        weights[one.row_M] += one.weight_M
    return FittedItems(counts, weights)


@dataclass(frozen=True)
class _CountTask:
    shards: Shards
    split: str
    partition: int
    items: int


@dataclass(frozen=True)
class _ItemCounts:
    """Items of a partition, int64 [M], with the number and the sum of weights of their events."""

    row_M: Rows
    count_M: Rows
    weight_M: Floats


def _count_items(task: _CountTask) -> _ItemCounts:
    rows, weight = task.shards.read(task.split, task.partition, ["item_row", "weight"])
    count_N = np.bincount(rows, minlength=task.items)
    weight_N = np.bincount(rows, weight.astype(np.float64), task.items).astype(np.float64)
    row_M = np.flatnonzero(count_N)
    return _ItemCounts(row_M, count_N[row_M], weight_N[row_M])


def count_test_users(shards: Shards) -> int:
    """Users with test events; a user's events are all in one partition."""
    rows = (shards.read("test", partition, ["user_row"]) for partition in range(shards.partitions))
    return sum(len(np.unique(row_M)) for (row_M,) in rows)


def partition_groups(shards: Shards) -> tuple[tuple[int, ...], ...]:
    """Partitions in order, in groups of bounded size; the same whatever measures them."""
    return tuple(map(tuple, shards.groups(GROUP_EVENTS)))


def group_of(
    shards: Shards,
    partitions: Sequence[int],
    fitted: Sequence[str],
    fold_in: float,
    sample: UserSample,
) -> Group:
    """The users of the test split in some partitions.

    Args:
        shards: their events.
        partitions: which partitions.
        fitted: the splits that the model was fitted to.
        fold_in: share of the test events of cold users that make their vectors, drawn by the hash
            of the event; 0: such users are counted only.
        sample: the users that are evaluated.
    """
    events = {split: _read(shards, split, partitions) for split in SPLITS}
    drawn = sample.of(events["test"].user)
    unsampled = np.unique(events["test"].user[~drawn])
    test_users = np.unique(events["test"].user[drawn])
    # Cut to these users first: of a large log, few of them are drawn.
    of_test = {split: _of_users(test_users, events[split]) for split in SPLITS}
    known = np.zeros(len(test_users), bool)
    for split in fitted:
        known[of_test[split].user] = True
    users, place = test_users[known], np.cumsum(known) - 1
    train, valid, test = (_of_known(known, place, of_test[split]) for split in SPLITS)
    own = _concatenated([{"train": train, "valid": valid}[split] for split in fitted])
    group = _of_events(users, own, (train, valid), test)
    cold = test_users[~known]
    return dataclasses.replace(
        group,
        cold_users=len(cold),
        cold_events=int(drawn.sum()) - len(test.user),
        unsampled_users=len(unsampled),
        unsampled_events=int((~drawn).sum()),
        folded_in=_folded_in(cold, shards, partitions, events, fold_in) if fold_in else None,
    )


def _of_known(known: NDArray[np.bool_], place: Rows, events: Events) -> Events:
    """The events of those users who are known, users as positions among them."""
    kept = known[events.user]
    return Events(place[events.user[kept]], events.item[kept], events.weight[kept])


def _of_events(users: Rows, fitted: Events, seen: tuple[Events, ...], test: Events) -> Group:
    """A group of users none of whom is cold."""
    seen_rows = _lists(seen, len(users))
    wanted = _lists((test,), len(users))
    width = max((int(r.max()) for r in (seen_rows.rows, wanted.rows) if r.numel()), default=0) + 1
    seen_keys = seen_rows.users() * width + seen_rows.rows
    fresh = ~are_among(wanted.users() * width + wanted.rows, seen_keys)
    relevant = RowLists.of(wanted.users()[fresh], wanted.rows[fresh], len(users))
    return Group(users, seen_rows, relevant, fitted, test, 0, 0, int((~fresh).sum()))


def _folded_in(
    users: Rows,
    shards: Shards,
    partitions: Sequence[int],
    events: dict[str, Events],
    share: float,
) -> Group:
    """Cold users with a share of their test events as what is known of them."""
    (hash_of,) = shards.concatenated(["test"], partitions, ["hash"])
    # Mixed once more: a random split draws its test events by the hash itself.
    given = to_unit_interval(mix64(hash_of).view(np.int64)) < share
    known, asked = (_of_users(users, _where(events["test"], part)) for part in (given, ~given))
    enough = np.isin(np.arange(len(users)), known.user)
    kept = users[enough]
    known, asked = (
        _of_users(kept, Events(users[e.user], e.item, e.weight)) for e in (known, asked)
    )
    return _of_events(kept, known, (known, _of_users(kept, events["valid"])), asked)


def _where(events: Events, chosen: NDArray[np.bool_]) -> Events:
    return Events(events.user[chosen], events.item[chosen], events.weight[chosen])


def _read(shards: Shards, split: str, partitions: Sequence[int]) -> Events:
    """Events of some partitions, with rows for users."""
    user, item, weight = shards.concatenated(
        [split], partitions, ["user_row", "item_row", "weight"]
    )
    return Events(user, item, weight.astype(np.float64))


def _of_users(users: Rows, events: Events) -> Events:
    """The events of `users` (sorted rows), users as positions in it."""
    place = np.searchsorted(users, events.user)
    place[place == len(users)] = 0
    kept = users[place] == events.user if len(users) else np.zeros(len(events.user), bool)
    return Events(place[kept], events.item[kept], events.weight[kept])


def _concatenated(parts: Sequence[Events]) -> Events:
    user, item, weight = (
        np.concatenate([getattr(part, name) for part in parts])
        for name in ("user", "item", "weight")
    )
    return Events(user, item, weight)


def _lists(events: tuple[Events, ...], count: int) -> RowLists:
    user = torch.from_numpy(np.concatenate([e.user for e in events]))
    item = torch.from_numpy(np.concatenate([e.item for e in events]))
    return RowLists.of(user, item, count)
