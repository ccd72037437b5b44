"""Sessions of users, and the pairs of items within a window of one. Pure functions of events.

Legend: E events, M pairs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embedmill.pipeline.prepare.splits.assignment import unit

__all__ = ["Log", "Sessions", "Window", "kept"]

Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

# Another draw than the one that splits by the same hash.
_SALT = np.int64(0x5851F42D4C957F2D)


@dataclass(frozen=True)
class Window:
    """What makes a session, and which of its items are a pair.

    `items` is how far apart they may stand (0: anywhere in the session), `time` how far in
    microseconds (0: any). A session ends where nothing follows for `gap` microseconds (0: at
    the end of the user's history). One of more than `longest` events is cut into equal pieces.
    """

    items: int
    time: int
    gap: int
    longest: int


@dataclass(frozen=True)
class Log:
    """Events of whole users in any order; times in microseconds."""

    user_E: Ints
    item_E: Ints
    time_E: Ints
    hash_E: Ints


def kept(hash_E: Ints, frequency_E: Ints, total: int, threshold: float) -> Mask:
    """Which events stay when frequent items are thinned out (Mikolov et al. 2013, section 2.3).

    An event of an item with the share f of all events stays with probability
    sqrt(threshold / f), drawn by the event's hash: the same on every machine.

    Args:
        hash_E: of the events.
        frequency_E: how many events the event's item has.
        total: events of all items.
        threshold: shares up to it stay whole; 0 keeps everything.
    """
    if not threshold:
        return np.ones(len(hash_E), bool)
    chance_E = np.sqrt(threshold * total / np.maximum(frequency_E, 1))
    return unit(hash_E ^ _SALT) < chance_E


@dataclass(frozen=True)
class Sessions:
    """Events in order of user and time; `left_E` events of the same session follow each."""

    item_E: Ints
    time_E: Ints
    left_E: Ints
    number: int
    cut: int

    @staticmethod
    def of(log: Log, stay_E: Mask, window: Window) -> Sessions:
        """Sessions of the events that stay. Events that do not still hold a session together.

        Events of one time are ordered by their hash. `number` counts sessions, `cut` those
        that were longer than allowed.
        """
        order = np.lexsort((log.item_E, log.hash_E, log.time_E, log.user_E))
        user_E, time_E = log.user_E[order], log.time_E[order]
        begins_E = np.ones(len(order), bool)
        begins_E[1:] = user_E[1:] != user_E[:-1]
        if window.gap:
            begins_E[1:] |= np.diff(time_E) > window.gap
        session_E, order = np.cumsum(begins_E)[stay_E[order]], order[stay_E[order]]
        _, first, size = np.unique(session_E, return_index=True, return_counts=True)
        size_E = np.repeat(size, size)
        place_E = np.arange(len(order)) - np.repeat(first, size)
        # Piece k of n holds the places from k * size / n, rounded up, to the next one's.
        pieces_E = -(-size_E // window.longest)
        end_E = -(-((place_E * pieces_E // np.maximum(size_E, 1) + 1) * size_E) // pieces_E)
        return Sessions(
            item_E=log.item_E[order],
            time_E=log.time_E[order],
            left_E=end_E - place_E - 1,
            number=len(size),
            cut=int((size > window.longest).sum()),
        )

    def pairs(self, window: Window, most: int) -> Iterator[tuple[Ints, Ints]]:
        """Items that stand in each other's window, in batches of whole sessions.

        Every pair comes once in each direction, as often as it is met; an item is no pair with
        itself.

        Args:
            window: how far apart.
            most: places of a batch to look at, if its sessions allow.

        Yields:
            center and context, int64 [M] each.
        """
        reach_E = np.minimum(self.left_E, window.items or self.left_E)
        ends = np.flatnonzero(self.left_E == 0) + 1
        batch = np.cumsum(reach_E)[ends - 1] // max(1, most)
        last = np.append(batch[1:] != batch[:-1], True) if len(ends) else batch
        start = 0
        for end in ends[last.astype(bool)].tolist():
            yield self._within(start, end, reach_E, window.time)
            start = end

    def _within(self, start: int, end: int, reach_E: Ints, time: int) -> tuple[Ints, Ints]:
        """Pairs of the sessions that lie in [start, end)."""
        centers, contexts = [], []
        at, apart = np.arange(start, end), 1
        while len(at := at[reach_E[at] >= apart]):
            if time:
                # Times rise: what is too late now is later still further on.
                at = at[self.time_E[at + apart] - self.time_E[at] <= time]
            first, second = self.item_E[at], self.item_E[at + apart]
            other = first != second
            centers += [first[other], second[other]]
            contexts += [second[other], first[other]]
            apart += 1
        none = [np.empty(0, np.int64)]
        return np.concatenate(centers or none), np.concatenate(contexts or none)
