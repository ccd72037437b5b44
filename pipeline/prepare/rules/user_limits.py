"""Limits on the events of a user: bots, told by their busiest day, and a maximum per user.

Legend: N events sorted by (user, item, time), M of them by users above the limit, D pairs of
such a user and a day.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embedmill.pipeline.prepare.hashing import mix64
from embedmill.pipeline.prepare.histograms import MICROSECONDS_PER_DAY

__all__ = ["UserEvents", "bot_events", "events_over_limit"]

Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class UserEvents:
    """Events of whole users: the user, the pair of user and item, and the time (microseconds)."""

    user_N: Ints
    pair_N: Ints
    time_N: Ints

    def differs_from_previous(self) -> Mask:
        """Whether [N] an event differs from the one before it in user, item or time."""
        differs_N = np.ones(len(self.pair_N), bool)
        differs_N[1:] = self.pair_N[1:] != self.pair_N[:-1]
        differs_N[1:] |= self.time_N[1:] != self.time_N[:-1]
        return differs_N


def bot_events(events: UserEvents, max_per_day: int, *, whole_user: bool) -> Mask:
    """Events [N] of users with more than `max_per_day` events on a day (UTC).

    Events with the same user, item and time count once, so that a file which was delivered twice
    makes nobody a bot.

    Args:
        events: events of whole users.
        max_per_day: largest number of events of a user on a day.
        whole_user: mark all events of such a user, not only those of that day.

    Returns:
        bool [N].
    """
    is_bot_N = np.zeros(len(events.user_N), bool)
    candidates_M = _events_of_users_with_more(events.user_N, max_per_day)
    if not len(candidates_M):
        return is_bot_N
    day_M = events.time_N[candidates_M] // MICROSECONDS_PER_DAY
    day_M -= day_M.min()
    days = int(day_M.max()) + 1
    user_day_M = events.user_N[candidates_M] * days + day_M
    user_day_D, index_M = np.unique(user_day_M, return_inverse=True)
    distinct_M = events.differs_from_previous()[candidates_M]
    over_D = np.bincount(index_M[distinct_M], minlength=len(user_day_D)) > max_per_day
    if whole_user:
        return np.isin(events.user_N, user_day_D[over_D] // days)
    is_bot_N[candidates_M] = over_D[index_M]
    return is_bot_N


def events_over_limit(events: UserEvents, hash_N: Ints, max_events: int, keep: str) -> Mask:
    """Events [N] beyond the `max_events` that a user may keep.

    Args:
        events: events of whole users.
        hash_N: a hash of what identifies the event, int64.
        max_events: number of events that a user keeps.
        keep: "latest" keeps the latest events, ties in time broken by the hash; "sample" keeps
            those with the smallest hashes, whatever other events the log has.

    Returns:
        bool [N], true for the events to drop.
    """
    candidates_M = _events_of_users_with_more(events.user_N, max_events)
    user_M, random_M = events.user_N[candidates_M], mix64(hash_N[candidates_M])
    if keep == "latest":
        age_M = -events.time_N[candidates_M]
    else:
        age_M = np.zeros(len(candidates_M), np.int64)
    # Events that tie in all three keys differ at most in weight. The sort is stable, so the order
    # of `events` decides between them.
    order = np.lexsort((random_M, age_M, user_M))
    user_M = user_M[order]
    starts = np.flatnonzero(np.append(True, user_M[1:] != user_M[:-1])[: len(user_M)])
    sizes = np.diff(np.append(starts, len(user_M)))
    rank_M = np.arange(len(user_M)) - np.repeat(starts, sizes)
    over_N = np.zeros(len(events.user_N), bool)
    over_N[candidates_M[order[rank_M >= max_events]]] = True
    return over_N


def _events_of_users_with_more(user_N: Ints, limit: int) -> Ints:
    """Positions of the events of users that have more than `limit` events."""
    if not len(user_N):
        return np.empty(0, np.int64)
    return np.flatnonzero(np.bincount(user_N)[user_N] > limit)
