"""Which users' vectors an index is measured and tuned with.

Legend: R rows of users.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from embedmill.pipeline.index.searchable import Rows
from embedmill.pipeline.views.shards import Shards

__all__ = ["choose_query_users", "split_in_half", "splitmix64"]


def choose_query_users(shards: Shards, wanted: int, seed: int) -> tuple[str, Rows]:
    """Rows of users with held-out events and with training events, chosen by a hash.

    Users with test events are preferred; where the log has none, users with validation events
    are taken, and where it has none of these, users with training events.

    Returns:
        the split, and at most `wanted` rows of users with events in it, rising.
    """
    for split in ("test", "valid", "train"):
        if not shards.count(split):
            continue
        lowest_hash, lowest_row = np.empty(0, np.uint64), np.empty(0, np.int64)
        for row in _users_by_partition(shards, split):
            hashes = np.concatenate((lowest_hash, splitmix64(row, seed)))
            rows = np.concatenate((lowest_row, row))
            order = np.lexsort((rows, hashes))[:wanted]
            lowest_hash, lowest_row = hashes[order], rows[order]
        if len(lowest_row):
            return split, np.sort(lowest_row)
    return "train", np.empty(0, np.int64)


def split_in_half(row_R: Rows, seed: int) -> tuple[Rows, Rows]:
    """Rows split in two by a hash, each rising; a single row is in both."""
    if len(row_R) < 2:
        return row_R, row_R
    order = np.lexsort((row_R, splitmix64(row_R, seed)))
    return np.sort(row_R[order[: len(row_R) // 2]]), np.sort(row_R[order[len(row_R) // 2 :]])


def _users_by_partition(shards: Shards, split: str) -> Iterator[Rows]:
    """By partition, rows of users with events in `split` and in train."""
    for partition in range(shards.partitions):
        if not shards.rows(split, partition):
            continue
        in_split, in_train = (
            np.unique(shards.read(one, partition, ["user_row"])[0]) for one in (split, "train")
        )
        yield in_split[np.isin(in_split, in_train)]


def splitmix64(row_R: Rows, seed: int) -> NDArray[np.uint64]:
    """A hash of row and seed, uint64 [R] (splitmix64: Steele, Lea and Flood, OOPSLA 2014)."""
    z = row_R.astype(np.uint64) + np.uint64(1) + (np.uint64(seed) << np.uint64(32))
    z = z * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
