"""Which events train, which validate, which test. Pure functions of an event's content.

Every function takes the events of whole users and gives a code per event: TRAIN, VALID or
TEST. Order never matters: ties in time are broken by the event's hash.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embedmill.pipeline.errors import ContractError
from embedmill.pipeline.prepare.engine.ordering import order_by_pair

__all__ = [
    "DROPPED",
    "SPLITS",
    "TEST",
    "TRAIN",
    "VALID",
    "Cuts",
    "Events",
    "check",
    "mixed",
    "unit",
]

TRAIN, VALID, TEST = 0, 1, 2
DROPPED = -1  # given by no split: an event that is not to be held out
Codes = npt.NDArray[np.int8]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Events:
    """Events of whole users, one array entry each; `given` is -1 unless the log gives it."""

    user: Ints
    item: Ints
    time: Ints
    hash: Ints
    given: Codes


@dataclass(frozen=True)
class Cuts:
    """What decides a split.

    `valid` and `test` are events per user (last) or shares (random; given, for `valid` taken
    from train); `valid_from` and `test_from` microseconds (time).
    """

    kind: str
    valid: float
    test: float
    valid_from: int = 0
    test_from: int = 0


def by_last(events: Events, cuts: Cuts) -> Codes:
    """A user's last `test` events are test, the `valid` before them validation.

    A user with no more than valid + test events is not held out: all of them train.
    """
    order = order_by_pair(events.user, events.time, events.hash, events.item)
    user = events.user[order]
    starts = np.flatnonzero(np.append(True, user[1:] != user[:-1])) if len(user) else order
    sizes = np.diff(np.append(starts, len(user)))
    size = np.repeat(sizes, sizes)
    from_end = np.repeat(starts + sizes, sizes) - np.arange(len(user))  # 1 is the last
    codes = np.zeros(len(user), np.int8)
    long_enough = size > cuts.valid + cuts.test
    codes[long_enough & (from_end <= cuts.test + cuts.valid)] = VALID
    codes[long_enough & (from_end <= cuts.test)] = TEST
    back = np.empty_like(codes)
    back[order] = codes
    return back


def by_time(events: Events, cuts: Cuts) -> Codes:
    """Global cuts: events from `valid_from` validate, from `test_from` test."""
    codes = np.zeros(len(events.time), np.int8)
    codes[events.time >= cuts.valid_from] = VALID
    codes[events.time >= cuts.test_from] = TEST
    return codes


def by_hash(events: Events, cuts: Cuts) -> Codes:
    """Shares of the events, drawn by their hash."""
    draw = unit(events.hash)
    codes = np.zeros(len(draw), np.int8)
    codes[draw < cuts.test + cuts.valid] = VALID
    codes[draw < cuts.test] = TEST
    return codes


def as_given(events: Events, cuts: Cuts) -> Codes:
    """As the log says; a share `valid` of its train, drawn by hash, validates."""
    codes = events.given.copy()
    codes[(codes == TRAIN) & (unit(events.hash) < cuts.valid)] = VALID
    return codes


def unit(hashes: Ints) -> npt.NDArray[np.float64]:
    """A number in [0, 1) from each hash, independent of its order.

    Shard files are in hash order; a split by the hash itself would take a range of it.
    """
    return (mixed(hashes) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def mixed(keys: Ints) -> npt.NDArray[np.uint64]:
    """Keys hashed one to one to 64 bits that look random (splitmix64's finalizer)."""
    bits = keys.view(np.uint64) ^ np.uint64(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        bits = (bits ^ (bits >> np.uint64(shift))) * np.uint64(factor)
    return bits ^ (bits >> np.uint64(31))


def check(kind: str, user: Ints, time: Ints, codes: Codes) -> None:
    """Look for leakage in what is about to be written.

    Args:
        kind: the rule of the split.
        user: user row of each event.
        time: its time.
        codes: where it goes.

    Raises:
        ContractError: with "last", a user's train event is later than a held-out one, or a
            validation event later than a test one; with "time", the same over all users.
    """
    if kind not in ("last", "time") or not len(user):
        return
    group = user if kind == "last" else np.zeros_like(user)
    order = order_by_pair(group, time, codes)
    same = group[order][1:] == group[order][:-1]
    later = codes[order][1:] >= codes[order][:-1]
    rising = time[order][1:] > time[order][:-1]
    # In order of time a code may never fall; within one time they were sorted by code.
    if (same & rising & ~later).any():
        row = int(user[order][1:][same & rising & ~later][0])
        raise ContractError(
            f"split '{kind}' leaks: an event of user row {row} is later than one held out after it",
            todo="This is a bug; nothing was committed",
        )


SPLITS: dict[str, Callable[[Events, Cuts], Codes]] = {
    "last": by_last,
    "time": by_time,
    "random": by_hash,
    "given": as_given,
}
