"""Sessions, windows and subsampling against a plain loop, and by hand."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Iterable

import numpy as np
import pytest

from embedmill.pipeline.prepare.splits.sessions import (
    EventArrays,
    Sessions,
    SessionWindow,
    subsample,
)

MINUTE = 60_000_000
Row = tuple[int, int, int]  # user, item, minute


def log_of(rows: Iterable[Row]) -> EventArrays:
    user, item, minute = (np.array(c, dtype=np.int64) for c in zip(*rows, strict=True))
    # Ties in time fall in the order of the rows.
    return EventArrays(user, item, minute * MINUTE, np.arange(len(user), dtype=np.int64))


def found(
    rows: Iterable[Row], window: SessionWindow, most: int = 1 << 20
) -> Counter[tuple[int, int]]:
    log = log_of(rows)
    sessions = Sessions.from_events(log, np.ones(len(log.user_E), bool), window)
    pairs: Counter[tuple[int, int]] = Counter()
    for center, context in sessions.pairs(window, most):
        pairs.update(zip(center.tolist(), context.tolist(), strict=True))
    return pairs


def both(*pairs: tuple[int, int]) -> Counter[tuple[int, int]]:
    return Counter([*pairs, *((b, a) for a, b in pairs)])


def test_windows_by_hand() -> None:
    rows = [(0, 1, 0), (0, 2, 1), (0, 3, 2), (0, 4, 50), (1, 5, 0), (1, 5, 1), (1, 6, 2)]
    assert found(rows, SessionWindow(1, 0, 0, 9)) == both((1, 2), (2, 3), (3, 4), (5, 6))
    # Within two minutes; an item is no pair with itself, but both of its events meet the other.
    expected = both((1, 2), (1, 3), (2, 3), (5, 6), (5, 6))
    assert found(rows, SessionWindow(0, 2 * MINUTE, 0, 9)) == expected
    # A pause of more than 30 minutes ends a session; one of just 48 does not where 48 are allowed.
    assert found(rows, SessionWindow(1, 0, 30 * MINUTE, 9)) == both((1, 2), (2, 3), (5, 6))
    assert found(rows, SessionWindow(1, 0, 48 * MINUTE, 9)) == found(
        rows, SessionWindow(1, 0, 0, 9)
    )


def test_long_sessions_are_cut_into_equal_pieces() -> None:
    rows = [(0, n, n) for n in range(7)]
    sessions = Sessions.from_events(log_of(rows), np.ones(7, bool), SessionWindow(0, 0, 0, 3))
    # Seven events in three pieces: 3, 2 and 2.
    assert sessions.following_E.tolist() == [2, 1, 0, 1, 0, 1, 0]
    assert (sessions.number, sessions.too_long) == (1, 1)
    assert (
        Sessions.from_events(log_of(rows), np.ones(7, bool), SessionWindow(0, 0, 0, 7)).too_long
        == 0
    )


def test_thinned_events_leave_the_window_and_hold_the_session_together() -> None:
    rows = [(0, 1, 0), (0, 2, 20), (0, 3, 40)]
    stay = np.array([True, False, True])
    window = SessionWindow(1, 0, 30 * MINUTE, 9)
    sessions = Sessions.from_events(log_of(rows), stay, window)
    ((center, context),) = sessions.pairs(window, 100)
    assert list(zip(center.tolist(), context.tolist(), strict=True)) == [(1, 3), (3, 1)]


@pytest.mark.parametrize("most", [1, 50, 1 << 20])
@pytest.mark.parametrize(
    "window",
    [
        SessionWindow(3, 0, 0, 100),
        SessionWindow(0, 0, 90 * MINUTE, 100),
        SessionWindow(0, 200 * MINUTE, 0, 100),
        SessionWindow(4, 100 * MINUTE, 200 * MINUTE, 5),
    ],
)
def test_pairs_are_those_of_a_plain_loop(window: SessionWindow, most: int) -> None:
    draw = random.Random(3)
    rows = [(draw.randrange(9), draw.randrange(12), draw.randrange(4000)) for _ in range(400)]
    assert found(rows, window, most) == plain(rows, window)


def plain(rows: list[Row], window: SessionWindow) -> Counter[tuple[int, int]]:
    pairs: Counter[tuple[int, int]] = Counter()
    for user in range(9):
        own = sorted((m * MINUTE, n, i) for n, (u, i, m) in enumerate(rows) if u == user)
        sessions: list[list[tuple[int, int, int]]] = []
        for event in own:
            pause = window.gap and sessions and event[0] - sessions[-1][-1][0] > window.gap
            if not sessions or pause:
                sessions.append([])
            sessions[-1].append(event)
        for whole in sessions:
            number = -(-len(whole) // window.max_events)
            ends = [-(-k * len(whole) // number) for k in range(number + 1)]
            for begin, end in itertools.pairwise(ends):
                piece = whole[begin:end]
                for a, (time_a, _, item_a) in enumerate(piece):
                    for b, (time_b, _, item_b) in enumerate(piece):
                        near = not window.max_distance or abs(a - b) <= window.max_distance
                        soon = not window.max_time or abs(time_a - time_b) <= window.max_time
                        if near and soon and item_a != item_b:
                            pairs[item_a, item_b] += 1
    return pairs


def test_frequent_items_stay_with_the_root_of_their_share() -> None:
    """An item of a share of 1/4 at threshold 1/100 stays with chance .2; one of 1/200 always."""
    draw = np.random.default_rng(5)
    hashes = draw.integers(-(2**63), 2**63 - 1, 40_000, dtype=np.int64)
    common = subsample(hashes, np.full(40_000, 250), 1000, 0.01)
    assert common.mean() == pytest.approx(0.2, abs=0.01)
    assert subsample(hashes, np.full(40_000, 5), 1000, 0.01).all()
    assert subsample(hashes, np.full(40_000, 250), 1000, 0).all()
    assert (subsample(hashes[::-1], np.full(40_000, 250), 1000, 0.01) == common[::-1]).all()
