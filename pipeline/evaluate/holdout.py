"""Held-out events, a group of partitions at a time.

Legend: U known users of a group, M test events of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from embedmill.pipeline.score import RowLists
from embedmill.pipeline.store.artifact import Artifact

__all__ = ["Group", "Log", "groups", "read_log"]

Rows = NDArray[np.int64]
Floats = NDArray[np.float64]

# Events read at once: some hundred MiB, whatever the log.
_EVENTS = 1 << 22


@dataclass(frozen=True)
class Log:
    """What the model was fitted to, by item: events int64 [N] and their weights float64 [N]."""

    counts: Rows
    weights: Floats

    @property
    def mean(self) -> float:
        """Mean weight of an event; 0 without any."""
        return float(self.weights.sum() / max(1, self.counts.sum()))


@dataclass(frozen=True)
class Events:
    """Events of one split: the user's place in the group, the item's row, the weight."""

    user: Rows
    item: Rows
    weight: Floats


@dataclass(frozen=True)
class Group:
    """Users with test events whom the model knows, and what is hidden from and asked of them.

    `seen` are the items of train and valid; `relevant` those of test that are not seen.
    `fitted` are the events that the model was fitted to. `cold_users` have test events and
    none of those: they have no vector of their own. `repeats` are pairs of test seen before.
    """

    users: Rows
    seen: RowLists
    relevant: RowLists
    fitted: Events
    test: Events
    cold_users: int
    cold_events: int
    repeats: int


def read_log(shards: Artifact, items: int, fitted: Sequence[str]) -> Log:
    """Item counts and weights of the splits `fitted`, over all partitions."""
    counts, weights = np.zeros(items, np.int64), np.zeros(items)
    for entry in (file for split in fitted for file in shards.files(split)):
        table = shards.read_table(entry.path, ["item_row", "weight"])
        rows = table["item_row"].to_numpy()
        counts += np.bincount(rows, minlength=items)
        weights += np.bincount(rows, table["weight"].to_numpy().astype(np.float64), items)
    return Log(counts, weights)


def groups(shards: Artifact, fitted: Sequence[str]) -> Iterator[Group]:
    """All users of the test split, in groups of bounded size, in order of partition.

    Args:
        shards: the artifact.
        fitted: the splits that the model was fitted to.
    """
    names: list[str] = []
    events = 0
    for entry in shards.files("train"):
        name = entry.path.removeprefix("train/")
        size = sum(
            f.rows or 0 for s in ("train", "valid", "test") for f in shards.files(f"{s}/{name}")
        )
        if names and events + size > _EVENTS:
            yield _group(shards, names, fitted)
            names, events = [], 0
        names.append(name)
        events += size
    if names:
        yield _group(shards, names, fitted)


def _group(shards: Artifact, names: list[str], fitted: Sequence[str]) -> Group:
    read = {split: _read(shards, split, names) for split in ("train", "valid", "test")}
    asked = np.unique(read["test"][0])
    known = np.isin(asked, np.concatenate([np.unique(read[split][0]) for split in fitted]))
    users = asked[known]
    train, valid, test = (_of(users, *read[split]) for split in ("train", "valid", "test"))
    seen = _lists((train, valid), len(users))
    wanted = _lists((test,), len(users))
    width = max((int(r.max()) for r in (seen.rows, wanted.rows) if r.numel()), default=0) + 1
    fresh = ~torch.isin(wanted.users() * width + wanted.rows, seen.users() * width + seen.rows)
    relevant = RowLists.of(wanted.users()[fresh], wanted.rows[fresh], len(users))
    return Group(
        users=users,
        seen=seen,
        relevant=relevant,
        fitted=_joined([{"train": train, "valid": valid}[split] for split in fitted]),
        test=test,
        cold_users=int((~known).sum()),
        cold_events=len(read["test"][0]) - len(test.user),
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


def _joined(parts: Sequence[Events]) -> Events:
    user, item, weight = (
        np.concatenate([getattr(part, name) for part in parts])
        for name in ("user", "item", "weight")
    )
    return Events(user, item, weight)


def _lists(events: tuple[Events, ...], count: int) -> RowLists:
    user = torch.from_numpy(np.concatenate([e.user for e in events]))
    item = torch.from_numpy(np.concatenate([e.item for e in events]))
    return RowLists.of(user, item, count)
