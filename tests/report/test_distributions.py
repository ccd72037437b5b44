"""Distributions of events, worked out by hand."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from embedmill.pipeline.report.collect.distributions import (
    BARS,
    POINTS,
    events_by_day,
    events_per_id,
)
from embedmill.schemas.report import EventsByDay

# Ids with 1, 1, 1, 2, 3, 3 and 9 events: 20 in all.
BINS = [[1, 3, 3], [2, 1, 2], [3, 2, 6], [9, 1, 9]]


def test_events_per_id() -> None:
    found = events_per_id(BINS, [("a", 9), ("b", 3)], 3)
    assert (found.ids, found.events, found.median) == (7, 20, 2)
    assert (found.once, found.below) == (3, 4)
    assert found.largest == 9 / 20
    # 1 % and 10 % of 7 ids are the first one, 50 % are 9 + 3 + 3 + 2 (round half to even: 4).
    assert found.shares == [(0.01, 9 / 20), (0.1, 9 / 20), (0.5, 17 / 20)]
    assert found.octaves == [(1, 3, 3), (2, 3, 8), (8, 1, 9)]
    assert found.curve == [(1, 1.0), (2, 4 / 7), (3, 3 / 7), (9, 1 / 7)]


def test_a_part_of_a_bin_has_its_mean() -> None:
    bins = [[1, 98, 98], [256, 2, 514]]
    found = events_per_id(bins, [("a", 258)], 1)
    assert found.shares[0] == (0.01, 257 / 612)


@given(st.dictionaries(st.integers(1, 10**9), st.integers(1, 1000), min_size=1))
def test_a_curve_is_bounded_and_falls(ids: dict[int, int]) -> None:
    bins = [[n, ids[n], n * ids[n]] for n in sorted(ids)]
    found = events_per_id(bins, [("a", max(ids))], 1)
    xs, ys = zip(*found.curve, strict=True)
    assert len(xs) <= POINTS + 1
    assert list(xs) == sorted(set(xs))
    assert list(ys) == sorted(set(ys), reverse=True)
    assert (xs[0], ys[0], xs[-1]) == (min(ids), 1.0, max(ids))
    shares = [share for _, share in found.shares]
    assert shares == sorted(shares)
    assert 0 < shares[0] <= 1


def test_events_by_day() -> None:
    found = events_by_day([("2024-02-28", 4), ("2024-03-01", 7), ("2024-03-02", 1)])
    assert found == EventsByDay(
        first="2024-02-28",
        last="2024-03-02",
        days=4,  # of a leap year
        empty=1,
        median=2.5,  # of 0, 1, 4, 7
        most=("2024-03-01", 7),
        span=1,
        bars=[("2024-02-28", 4), ("2024-02-29", 0), ("2024-03-01", 7), ("2024-03-02", 1)],
    )
    assert events_by_day([]) is None


@given(
    st.dictionaries(
        st.dates().map(lambda day: day.isoformat()), st.integers(1, 10**6), min_size=1, max_size=50
    )
)
def test_bars_are_few_and_hold_all_events(days: dict[str, int]) -> None:
    found = events_by_day(sorted(days.items()))
    assert found is not None
    assert len(found.bars) <= BARS
    assert sum(count for _, count in found.bars) == sum(days.values())
    assert found.days - found.empty == len(days)
