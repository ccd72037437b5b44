"""Held-out events, a group of partitions at a time.

Legend: U known users of a group, M test events of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.artifact import Artifact
from pipeline.score import RowLists

__all__ = ["Group", "Log", "groups", "read_log"]

Rows = NDArray[np.int64]
Floats = NDArray[np.float64]

# Events read at once: some hundred MiB, whatever the log.
_EVENTS = 1 << 22


@dataclass(frozen=True)
class Log:
    """What train says of the items: events and sum of weights of each, float64 and int64."""

    counts: Rows
    weights: Floats

    @property
    def mean(self) -> float:
        """Mean weight of a train event; 0 without any."""
        return float(self.weights.sum() / max(1, self.counts.sum()))


@dataclass(frozen=True)
class Events:
    """Events of one split: the user's place in the group, the item's row, the weight."""

    user: Rows
    item: Rows
    weight: Floats


@dataclass(frozen=True)
class Group:
    """Users with test events whom training knows, and what is hidden from and asked of them.

    `seen` are the items of train and valid; `relevant` those of test that are not seen.
    `cold_users` have test events and no train event: they have no vector of their own.
    `repeats` are pairs of test that were seen before.
    """

    users: Rows
    seen: RowLists
    relevant: RowLists
    train: Events
    test: Events
    cold_users: int
    cold_events: int
    repeats: int


def read_log(shards: Artifact, items: int) -> Log:
    """Item counts and weights of the train split, over all partitions."""
    counts, weights = np.zeros(items, np.int64), np.zeros(items)
    for entry in shards.files("train"):
        table = shards.read_table(entry.path, ["item_row", "weight"])
        rows = table["item_row"].to_numpy()
        counts += np.bincount(rows, minlength=items)
        weights += np.bincount(rows, table["weight"].to_numpy().astype(np.float64), items)
    return Log(counts, weights)


def groups(shards: Artifact) -> Iterator[Group]:
    """All users of the test split, in groups of bounded size, in order of partition."""
    names: list[str] = []
    events = 0
    for entry in shards.files("train"):
        name = entry.path.removeprefix("train/")
        size = sum(
            f.rows or 0 for s in ("train", "valid", "test") for f in shards.files(f"{s}/{name}")
        )
        if names and events + size > _EVENTS:
            yield _group(shards, names)
            names, events = [], 0
        names.append(name)
        events += size
    if names:
        yield _group(shards, names)


def _group(shards: Artifact, names: list[str]) -> Group:
    test_user, test_item, test_weight = _read(shards, "test", names)
    train_user, train_item, train_weight = _read(shards, "train", names)
    valid_user, valid_item, _ = _read(shards, "valid", names)
    asked = np.unique(test_user)
    known = np.isin(asked, np.unique(train_user))
    users = asked[known]
    train = _of(users, train_user, train_item, train_weight)
    valid = _of(users, valid_user, valid_item, np.zeros(len(valid_item)))
    test = _of(users, test_user, test_item, test_weight)
    seen = _lists((train, valid), len(users))
    wanted = _lists((test,), len(users))
    width = max((int(r.max()) for r in (seen.rows, wanted.rows) if r.numel()), default=0) + 1
    fresh = ~torch.isin(wanted.users() * width + wanted.rows, seen.users() * width + seen.rows)
    relevant = RowLists.of(wanted.users()[fresh], wanted.rows[fresh], len(users))
    return Group(
        users=users,
        seen=seen,
        relevant=relevant,
        train=train,
        test=test,
        cold_users=int((~known).sum()),
        cold_events=len(test_user) - len(test.user),
        repeats=int((~fresh).sum()),
    )


def _read(shards: Artifact, split: str, names: list[str]) -> tuple[Rows, Rows, Floats]:
    columns = ["user_row", "item_row", "weight"]
    tables = [shards.read_table(f"{split}/{name}", columns) for name in names]
    user, item, weight = (
        np.concatenate([table[column].to_numpy() for table in tables]) for column in columns
    )
    return user, item, weight.astype(np.float64)


def _of(users: Rows, user: Rows, item: Rows, weight: Floats) -> Events:
    """The events of `users` (sorted rows), by place in it."""
    place = np.searchsorted(users, user)
    place[place == len(users)] = 0
    ours = users[place] == user if len(users) else np.zeros(len(user), bool)
    return Events(place[ours], item[ours], weight[ours])


def _lists(events: tuple[Events, ...], count: int) -> RowLists:
    user = torch.from_numpy(np.concatenate([e.user for e in events]))
    item = torch.from_numpy(np.concatenate([e.item for e in events]))
    return RowLists.of(user, item, count)
