"""What counters count, for tables of them."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["rows"]

# Counters whose names do not say it.
_MEANINGS = {
    "late": "events of another day than their file’s folder",
    "empty_lists": "records whose list of events is empty; they count as no rows",
    "users_dropped": "users below vocab.min_user_count",
    "items_dropped": "items below vocab.min_item_count",
    "users_back": "users that were retired before, in use again on their old rows",
    "items_back": "items that were retired before, in use again on their old rows",
    "users_gone": "users retired in this run",
    "items_gone": "items retired in this run",
    "users_retired": "rows of users without enough events, retired in this run or before",
    "items_retired": "rows of items without enough events, retired in this run or before",
    "users_shared": "rows that users below the minimum count share",
    "items_shared": "rows that items below the minimum count share",
    "shared_held_out": "events of shared rows that would have been held out, dropped",
    "rounds": "rounds until the minimum counts were stable",
    "dropped": "events of users or items below the minimum counts",
    "repeats_valid": "validation events whose item the user already has in train",
    "repeats_test": "test events whose item the user already has in train",
    "cold_items_test": "items of test that never occur in train",
    "cold_users_test": "users of test without train events",
    "users_not_held_out": "users with too few events for anything to be held out",
    "users_without_train": "users without train events",
    "items_without_train": "items without train events; they can be recommended all the same",
    "cold_users": "users of test without train events, left out: they have no vector",
    "cold_events": "test events of these users",
    "repeats": "test pairs that are in train or validation too, left out",
    "nothing_left": "users whose test items are all repeats, left out",
    "test_pairs": "pairs of a user and a held-out item",
    "users": "users evaluated",
}


def rows(counters: Iterable[tuple[str, int]]) -> list[tuple[str, int, str]]:
    """(name, count, meaning) of each counter; the meaning is "" where the name says it."""
    return [(name, value, _MEANINGS.get(name, "")) for name, value in counters]
