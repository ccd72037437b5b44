"""Sessions of users, and the pairs of items within a window of a session. Pure functions.

Legend: E events, M pairs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embedmill.pipeline.prepare.hashing import to_unit_interval

__all__ = ["EventArrays", "SessionWindow", "Sessions", "subsample"]

Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

# The random split draws by the same hash; with this salt the two draws are independent.
_SALT = np.int64(0x5851F42D4C957F2D)


@dataclass(frozen=True)
class SessionWindow:
    """Where a session ends, and which two of its items are a pair.

    Attributes:
        max_distance: how many places apart the items of a pair may be; 0 for any number.
        max_time: how far apart in time, microseconds; 0 for any.
        gap: a session ends if no event follows for this long, microseconds; 0 makes one session
            of a user's whole history.
        max_events: a longer session is divided into pieces of equal size.
    """

    max_distance: int
    max_time: int
    gap: int
    max_events: int


@dataclass(frozen=True)
class EventArrays:
    """All events of some users, in any order; times in microseconds."""

    user_E: Ints
    item_E: Ints
    time_E: Ints
    hash_E: Ints


def subsample(hash_E: Ints, frequency_E: Ints, total: int, threshold: float) -> Mask:
    """Which events stay when frequent items are subsampled (Mikolov et al. 2013, section 2.3).

    An event of an item that has the share f of all events stays with probability
    sqrt(threshold / f). The draw is by the event's hash: the same on every machine.

    Args:
        hash_E: hash of each event.
        frequency_E: number of events of the event's item.
        total: number of events of all items.
        threshold: items with at most this share keep all events; 0 keeps every event.

    Returns:
        bool [E].
    """
    if not threshold:
        return np.ones(len(hash_E), bool)
    probability_E = np.sqrt(threshold * total / np.maximum(frequency_E, 1))
    return to_unit_interval(hash_E ^ _SALT) < probability_E


@dataclass(frozen=True)
class Sessions:
    """Events sorted by user and time, and how many events of its session follow each.

    `number` is the number of sessions, `too_long` the number of those that were divided.
    """

    item_E: Ints
    time_E: Ints
    following_E: Ints
    number: int
    too_long: int

    @staticmethod
    def from_events(events: EventArrays, keep_E: Mask, window: SessionWindow) -> Sessions:
        """The sessions of the events to keep. Events of one time are ordered by their hash.

        Args:
            events: all events. Those that are not kept are in no session, but still bridge gaps.
            keep_E: which events to keep.
            window: where a session ends.
        """
        order = np.lexsort((events.item_E, events.hash_E, events.time_E, events.user_E))
        user_E, time_E = events.user_E[order], events.time_E[order]
        begins_E = np.ones(len(order), bool)
        begins_E[1:] = user_E[1:] != user_E[:-1]
        if window.gap:
            begins_E[1:] |= np.diff(time_E) > window.gap
        session_E, order = np.cumsum(begins_E)[keep_E[order]], order[keep_E[order]]
        _, first, size = np.unique(session_E, return_index=True, return_counts=True)
        size_E = np.repeat(size, size)
        place_E = np.arange(len(order)) - np.repeat(first, size)
        # Piece k of n holds the places from ceil(k * size / n) up to the beginning of piece k + 1.
        pieces_E = -(-size_E // window.max_events)
        end_E = -(-((place_E * pieces_E // np.maximum(size_E, 1) + 1) * size_E) // pieces_E)
        return Sessions(
            item_E=events.item_E[order],
            time_E=events.time_E[order],
            following_E=end_E - place_E - 1,
            number=len(size),
            too_long=int((size > window.max_events).sum()),
        )

    def pairs(self, window: SessionWindow, batch_places: int) -> Iterator[tuple[Ints, Ints]]:
        """Pairs of different items within the window, in batches of whole sessions.

        Every pair comes once in each direction, as often as it occurs.

        Args:
            window: how far apart the items of a pair may be.
            batch_places: number of pairs of places that a batch looks at; more if one session
                has more.

        Yields:
            center and context, int64 [M] each.
        """
        reach_E = np.minimum(self.following_E, window.max_distance or self.following_E)
        ends = np.flatnonzero(self.following_E == 0) + 1
        batch = np.cumsum(reach_E)[ends - 1] // max(1, batch_places)
        is_last = np.append(batch[1:] != batch[:-1], True) if len(ends) else batch
        start = 0
        for end in ends[is_last.astype(bool)].tolist():
            yield self._pairs_between(start, end, reach_E, window.max_time)
            start = end

    def _pairs_between(
        self, start: int, end: int, reach_E: Ints, max_time: int
    ) -> tuple[Ints, Ints]:
        """Pairs of the sessions that lie in [start, end)."""
        centers, contexts = [], []
        position, distance = np.arange(start, end), 1
        while len(position := position[reach_E[position] >= distance]):
            if max_time:
                # Times rise: an event that is too far away now stays so at larger distances.
                elapsed = self.time_E[position + distance] - self.time_E[position]
                position = position[elapsed <= max_time]
            first, second = self.item_E[position], self.item_E[position + distance]
            different = first != second
            centers += [first[different], second[different]]
            contexts += [second[different], first[different]]
            distance += 1
        empty = [np.empty(0, np.int64)]
        return np.concatenate(centers or empty), np.concatenate(contexts or empty)
