"""Users with test events, a group of partitions at a time.

Legend: U known users of a group, M test events of them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from embedmill.pipeline.prepare.hashing import mix64, to_unit_interval
from embedmill.pipeline.score import RowLists
from embedmill.pipeline.views.shards import Shards
from embedmill.schemas.shards import SPLITS

__all__ = ["FittedItems", "Group", "UserSample", "count_test_users", "groups", "read_fitted_items"]

Rows = NDArray[np.int64]
Floats = NDArray[np.float64]

# Events read at once: some hundred MiB, whatever the log.
_EVENTS = 1 << 22


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


def read_fitted_items(shards: Shards, items: int, fitted: Sequence[str]) -> FittedItems:
    """Events and weights of every item in the splits `fitted`, over all partitions."""
    counts, weights = np.zeros(items, np.int64), np.zeros(items)
    for split in fitted:
        for partition in range(shards.partitions):
            rows, weight = shards.read(split, partition, ["item_row", "weight"])
            counts += np.bincount(rows, minlength=items)
            weights += np.bincount(rows, weight.astype(np.float64), items)
    return FittedItems(counts, weights)


def count_test_users(shards: Shards) -> int:
    """Users with test events; a user's events are all in one partition."""
    rows = (shards.read("test", partition, ["user_row"]) for partition in range(shards.partitions))
    return sum(len(np.unique(row_M)) for (row_M,) in rows)


def groups(
    shards: Shards, fitted: Sequence[str], fold_in: float = 0, sample: UserSample | None = None
) -> Iterator[Group]:
    """The users of the test split, in groups of bounded size, in order of partition.

    Args:
        shards: their events.
        fitted: the splits that the model was fitted to.
        fold_in: share of the test events of cold users that make their vectors, drawn by the hash
            of the event; 0: such users are counted only.
        sample: the users that are evaluated; None: all.
    """
    for partitions in shards.groups(_EVENTS):
        yield _group(shards, partitions, fitted, fold_in, sample or UserSample(1.0, 0))


def _group(
    shards: Shards,
    partitions: Sequence[int],
    fitted: Sequence[str],
    fold_in: float,
    sample: UserSample,
) -> Group:
    events = {split: _read(shards, split, partitions) for split in SPLITS}
    drawn = sample.of(events["test"].user)
    unsampled = np.unique(events["test"].user[~drawn])
    test_users = np.unique(events["test"].user[drawn])
    fitted_users = np.concatenate([np.unique(events[split].user) for split in fitted])
    known = np.isin(test_users, fitted_users)
    users = test_users[known]
    train, valid, test = (_of_users(users, events[split]) for split in SPLITS)
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


def _of_events(users: Rows, fitted: Events, seen: tuple[Events, ...], test: Events) -> Group:
    """A group of users none of whom is cold."""
    seen_rows = _lists(seen, len(users))
    wanted = _lists((test,), len(users))
    width = max((int(r.max()) for r in (seen_rows.rows, wanted.rows) if r.numel()), default=0) + 1
    seen_keys = seen_rows.users() * width + seen_rows.rows
    fresh = ~torch.isin(wanted.users() * width + wanted.rows, seen_keys)
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
