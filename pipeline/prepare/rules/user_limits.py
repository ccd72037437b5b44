"""Users with too many events: bots by their days, and the cap of a user.

Legend: N events in order of (user, item, time), M of users with many, D days of a user.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embedmill.pipeline.prepare.rules.time_decay import DAY
from embedmill.pipeline.prepare.splits.assignment import mixed

__all__ = ["Crowd", "capped", "of_bots"]

Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Crowd:
    """Whose events these are, of which pair of user and item, and when (microseconds)."""

    user_N: Ints
    pair_N: Ints
    time_N: Ints

    def distinct(self) -> Mask:
        """Where [N] an event differs from the one before in user, item or time."""
        new_N = np.ones(len(self.pair_N), bool)
        new_N[1:] = (self.pair_N[1:] != self.pair_N[:-1]) | (self.time_N[1:] != self.time_N[:-1])
        return new_N


def of_bots(crowd: Crowd, most: int, *, whole: bool) -> Mask:
    """Events [N] of users with more than `most` events on a day (UTC).

    Events alike in user, item and time count once: a file that was delivered twice makes
    nobody a bot.

    Args:
        crowd: whole users.
        most: events of a user on a day.
        whole: all events of such a user, not only those of that day.
    """
    gone_N = np.zeros(len(crowd.user_N), bool)
    many = _of_users_with_more(crowd.user_N, most)
    if not len(many):
        return gone_N
    day_M = crowd.time_N[many] // DAY
    day_M -= day_M.min()
    days = int(day_M.max()) + 1
    key_D, day_of_M = np.unique(crowd.user_N[many] * days + day_M, return_inverse=True)
    over_D = np.bincount(day_of_M[crowd.distinct()[many]], minlength=len(key_D)) > most
    if whole:
        return np.isin(crowd.user_N, key_D[over_D] // days)
    gone_N[many] = over_D[day_of_M]
    return gone_N


def capped(crowd: Crowd, hash_N: Ints, most: int, keep: str) -> Mask:
    """Events [N] beyond the `most` that each user keeps.

    Args:
        crowd: whole users.
        hash_N: of what makes the event itself.
        most: events that a user keeps.
        keep: "latest", where the hash decides between events of one time; or "sample", those
            of smallest hash, the same whatever else is logged.
    """
    over = _of_users_with_more(crowd.user_N, most)
    user_M, luck_M = crowd.user_N[over], mixed(hash_N[over])
    # What ties in all keys is alike but for its weight: its place decides, for sorts are stable.
    age_M = -crowd.time_N[over] if keep == "latest" else np.zeros(len(over), np.int64)
    order = np.lexsort((luck_M, age_M, user_M))
    user_M = user_M[order]
    starts = np.flatnonzero(np.append(True, user_M[1:] != user_M[:-1])[: len(user_M)])
    place_M = np.arange(len(user_M)) - np.repeat(starts, np.diff(np.append(starts, len(user_M))))
    gone_N = np.zeros(len(crowd.user_N), bool)
    gone_N[over[order[place_M >= most]]] = True
    return gone_N


def _of_users_with_more(user_N: Ints, most: int) -> Ints:
    """Places of the events of users with more than `most` of them."""
    if not len(user_N):
        return np.empty(0, np.int64)
    return np.flatnonzero(np.bincount(user_N)[user_N] > most)
