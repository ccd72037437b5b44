"""Assignment of events to the train, validation and test split. Pure functions of the events.

Every rule takes all events of each of its users and returns a code for each event: TRAIN, VALID
or TEST. The order of the events never matters: ties in time are broken by the event's hash.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embedmill.pipeline.errors import ContractError
from embedmill.pipeline.prepare.engine.ordering import order_by_pair
from embedmill.pipeline.prepare.hashing import mix64, to_unit_interval

__all__ = [
    "DROPPED",
    "TEST",
    "TRAIN",
    "VALID",
    "SplitBoundaries",
    "UserHistories",
    "assign_splits",
    "check_leakage",
]

TRAIN, VALID, TEST = 0, 1, 2
DROPPED = -1  # an event that would be held out but must not be; no rule returns it
Codes = npt.NDArray[np.int8]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class UserHistories:
    """All events of some users, one array entry each; `given` is the code the log gives, or -1."""

    user: Ints
    item: Ints
    time: Ints
    hash: Ints
    given: Codes


@dataclass(frozen=True)
class SplitBoundaries:
    """The rule of the split (`shards.split`) and its boundaries.

    `valid` and `test` are numbers of events per user ("last"), or shares of the events ("random";
    "given": `valid` is a share of train). For "users", `test` is a share of the users, who are
    drawn by `seed`, and `valid` one of the other users' events. `valid_from` and `test_from` are
    times in microseconds ("time").
    """

    rule: str
    valid: float
    test: float
    valid_from: int = 0
    test_from: int = 0
    seed: int = 0


def assign_splits(events: UserHistories, boundaries: SplitBoundaries) -> Codes:
    """The split of each event, int8 [events]: TRAIN, VALID or TEST."""
    return _RULES[boundaries.rule](events, boundaries)


def _by_last(events: UserHistories, boundaries: SplitBoundaries) -> Codes:
    """A user's last `test` events are test, the `valid` events before them validation.

    All events of a user who has no more than valid + test of them are train.
    """
    order = order_by_pair(events.user, events.time, events.hash, events.item)
    user = events.user[order]
    starts = np.flatnonzero(np.append(True, user[1:] != user[:-1])) if len(user) else order
    sizes = np.diff(np.append(starts, len(user)))
    size = np.repeat(sizes, sizes)
    from_end = np.repeat(starts + sizes, sizes) - np.arange(len(user))  # 1 is the last
    sorted_codes = np.zeros(len(user), np.int8)
    long_enough = size > boundaries.valid + boundaries.test
    sorted_codes[long_enough & (from_end <= boundaries.test + boundaries.valid)] = VALID
    sorted_codes[long_enough & (from_end <= boundaries.test)] = TEST
    codes = np.empty_like(sorted_codes)
    codes[order] = sorted_codes
    return codes


def _by_time(events: UserHistories, boundaries: SplitBoundaries) -> Codes:
    """Events from `valid_from` on are validation, from `test_from` on test, for all users."""
    codes = np.zeros(len(events.time), np.int8)
    codes[events.time >= boundaries.valid_from] = VALID
    codes[events.time >= boundaries.test_from] = TEST
    return codes


def _by_hash(events: UserHistories, boundaries: SplitBoundaries) -> Codes:
    """Random shares of the events, drawn by the hash of each event."""
    draw = to_unit_interval(events.hash)
    codes = np.zeros(len(draw), np.int8)
    codes[draw < boundaries.test + boundaries.valid] = VALID
    codes[draw < boundaries.test] = TEST
    return codes


def _by_user(events: UserHistories, boundaries: SplitBoundaries) -> Codes:
    """All events of a random share of the users are test; validation is a share of the others'."""
    seed = mix64(np.array([boundaries.seed], np.int64))
    test = to_unit_interval((mix64(events.user) ^ seed).view(np.int64)) < boundaries.test
    codes = np.where(to_unit_interval(events.hash) < boundaries.valid, VALID, TRAIN)
    return np.where(test, TEST, codes).astype(np.int8)


def _as_given(events: UserHistories, boundaries: SplitBoundaries) -> Codes:
    """The split that the log gives; a share `valid` of its train events is validation."""
    codes = events.given.copy()
    codes[(codes == TRAIN) & (to_unit_interval(events.hash) < boundaries.valid)] = VALID
    return codes


_RULES: dict[str, Callable[[UserHistories, SplitBoundaries], Codes]] = {
    "last": _by_last,
    "time": _by_time,
    "random": _by_hash,
    "users": _by_user,
    "given": _as_given,
}


def check_leakage(rule: str, user: Ints, time: Ints, codes: Codes) -> None:
    """Check that no event is later than one of the same group that was held out after it.

    Args:
        rule: "last" checks within each user, "time" over all users; others are not checked.
        user: user row of each event.
        time: time of each event.
        codes: split of each event.

    Raises:
        ContractError: a train event is later than a held-out one, or a validation event later
            than a test one.
    """
    if rule not in ("last", "time") or not len(user):
        return
    group = user if rule == "last" else np.zeros_like(user)
    order = order_by_pair(group, time, codes)
    same_group = group[order][1:] == group[order][:-1]
    code_rises = codes[order][1:] >= codes[order][:-1]
    time_rises = time[order][1:] > time[order][:-1]
    # In order of time the code must never fall. Events of one time are sorted by code.
    leaks = same_group & time_rises & ~code_rises
    if leaks.any():
        row = int(user[order][1:][leaks][0])
        raise ContractError(
            f"split '{rule}' leaks: an event of user row {row} is later than one held out after it",
            todo="This is a bug; nothing was committed",
        )
