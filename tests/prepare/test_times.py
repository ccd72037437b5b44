"""Times in the forms that logs have them, against Python's own datetime and hand-worked values."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedmill.pipeline.errors import ConfigError, InputError
from embedmill.pipeline.prepare.parse.numbers import as_numbers
from embedmill.pipeline.prepare.parse.times import day_bounds, parse_times, time_format_of
from embedmill.pipeline.prepare.parse.values import try_cast

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MIDNIGHT = 1_793_491_200  # 2026-11-01T00:00:00Z in seconds
BERLIN = "Europe/Berlin"


def micros(when: datetime) -> int:
    return (when - EPOCH) // timedelta(microseconds=1)


def read(
    values: Any, unit: str, patterns: tuple[str, ...] = (), zone: str = "UTC"
) -> list[int | None]:
    """Microseconds, None where there is no time or it is out of range."""
    column = values if isinstance(values, pa.Array) else pa.array(values)
    found = parse_times(column, "t", time_format_of(unit, patterns, zone))
    good = (found.known & found.in_range).tolist()
    return [value if one else None for value, one in zip(found.values.tolist(), good, strict=True)]


def test_nanoseconds_are_cut_to_microseconds_exactly() -> None:
    odd = 1_793_491_200_123_456_789
    assert read([odd, -1], "nanoseconds") == [odd // 1000, -1]
    assert read([str(odd), "1.5", "x"], "nanoseconds") == [odd // 1000, None, None]


@pytest.mark.parametrize("per_second", [1, 10**3, 10**6, 10**9])
@pytest.mark.parametrize("kind", [int, str])
def test_auto_tells_the_unit_of_a_number_by_its_size(per_second: int, kind: type) -> None:
    values = [kind(MIDNIGHT * per_second), kind((MIDNIGHT + 7) * per_second)]
    assert read(values, "auto") == [MIDNIGHT * 10**6, (MIDNIGHT + 7) * 10**6]


def test_auto_takes_each_value_for_itself() -> None:
    values = [
        "1793491200",
        "1793491200.5",
        "1793491200123",
        "1793491200123456789",
        "2026-11-01T00:00:00Z",
        "2026-11-01 01:00:00+01:00",
        "01.11.2026 00:00",
        "01/Nov/2026:01:00:00 +0100",
        "soon",
        "",
        None,
    ]
    start = MIDNIGHT * 10**6
    patterns = ("%d.%m.%Y %H:%M", "%d/%b/%Y:%H:%M:%S %z")
    assert read(values, "auto", patterns) == [
        start, start + 500_000, start + 123_000, start + 123_456, start, start, start, start,
        None, None, None,
    ]  # fmt: skip
    for value in values:
        alone = read(pa.array([value], pa.string()), "auto", patterns)
        assert alone == read(values, "auto", patterns)[values.index(value) :][:1]


def test_auto_over_floats_and_timestamps() -> None:
    assert read([1793491200.5, None], "auto") == [MIDNIGHT * 10**6 + 500_000, None]
    stamps = pa.array([datetime(2026, 11, 1)], pa.timestamp("ns"))
    assert read(stamps, "auto") == [MIDNIGHT * 10**6]


@pytest.mark.parametrize(
    ("pattern", "text", "when"),
    [
        ("%Y%m%d", "20261101", datetime(2026, 11, 1)),
        ("%d.%m.%Y %H:%M:%S", "1.3.2026 4:05:06", datetime(2026, 3, 1, 4, 5, 6)),
        ("%m/%d/%y %I:%M %p", "11/01/26 12:30 am", datetime(2026, 11, 1, 0, 30)),
        ("%m/%d/%y %I:%M %p", "11/01/69 12:30 PM", datetime(1969, 11, 1, 12, 30)),
        ("%a, %d %b %Y %T", "Sun, 01 Nov 2026 10:11:12", datetime(2026, 11, 1, 10, 11, 12)),
        ("%A %d %B %Y", "Sunday 01 November 2026", datetime(2026, 11, 1)),
        ("%F %T,%f", "2026-11-01 10:11:12,5", datetime(2026, 11, 1, 10, 11, 12, 500_000)),
        ("%F %T.%f", "2026-11-01 10:11:12.1234567", datetime(2026, 11, 1, 10, 11, 12, 123_456)),
        ("%Y.%j", "2024.366", datetime(2024, 12, 31)),
        ("%FT%T%z", "2026-11-01T10:11:12+02:00", datetime(2026, 11, 1, 8, 11, 12)),
        ("%FT%T%z", "2026-11-01T10:11:12-0130", datetime(2026, 11, 1, 11, 41, 12)),
        ("%FT%T%z", "2026-11-01T10:11:12Z", datetime(2026, 11, 1, 10, 11, 12)),
        ("100%% %F", "100% 2026-11-01", datetime(2026, 11, 1)),
    ],
)
def test_patterns(pattern: str, text: str, when: datetime) -> None:
    expected = micros(when.replace(tzinfo=UTC))
    assert read([text, f"{text}x", "", None], "pattern", (pattern,)) == [expected] + [None] * 3


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        ("%d.%m.%Y", "31.02.2026"),
        ("%d.%m.%Y", "29.02.2026"),
        ("%d.%m.%Y", "00.01.2026"),
        ("%d.%m.%Y", "01.13.2026"),
        ("%d %b %Y", "01 Foo 2026"),
        ("%Y.%j", "2026.366"),
        ("%F %H", "2026-01-01 24"),
        ("%F %I %p", "2026-01-01 13 pm"),
        ("%F %T", "2026-01-01 23:59:60"),
    ],
)
def test_what_is_no_day_or_hour_is_no_time(pattern: str, text: str) -> None:
    assert read([text], "pattern", (pattern,)) == [None]


def test_the_first_pattern_that_reads_a_text_is_taken() -> None:
    values = ["01/02/2026", "13/02/2026", "02/13/2026"]
    first_of_january = micros(datetime(2026, 2, 1, tzinfo=UTC))
    assert read(values, "pattern", ("%d/%m/%Y", "%m/%d/%Y")) == [
        first_of_january,
        micros(datetime(2026, 2, 13, tzinfo=UTC)),
        micros(datetime(2026, 2, 13, tzinfo=UTC)),
    ]


def test_patterns_over_numbers() -> None:
    assert read(pa.array([20261101, 7]), "pattern", ("%Y%m%d",)) == [MIDNIGHT * 10**6, None]


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("%H:%M", "does not say which day it is"),
        ("%Y-%m", "does not say which day it is"),
        ("%Y-%m-%d %Q", "'%Q' in '%Y-%m-%d %Q' is unknown"),
        ("%Y-%m-%d %d", "'%d' in '%Y-%m-%d %d' is there twice"),
        ("%F %d", "'%d' in '%Y-%m-%d %d' is there twice"),
    ],
)
def test_patterns_that_cannot_be_used(pattern: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        time_format_of("pattern", (pattern,), "UTC")


def test_an_unknown_time_zone() -> None:
    with pytest.raises(ConfigError, match="no time zone 'Europe/Berlyn' is known"):
        time_format_of("iso", (), "Europe/Berlyn")


def test_local_times_where_clocks_are_changed() -> None:
    """In a gap the offset before counts, of two instants the first (RFC 5545, 3.3.5)."""
    texts = [
        "2026-01-01T12:00:00",  # +01:00
        "2026-07-01 12:00",  # +02:00
        "2026-03-29T01:59:59",  # the last second before the gap
        "2026-03-29T02:30:00",  # does not exist
        "2026-03-29T03:00:00",  # the first after it
        "2026-10-25T02:30:00",  # exists twice
        "2026-10-25T03:00:00",
        "2026-07-01T12:00:00Z",  # names its zone
        "2026-07-01T12:00:00-03:00",
        "2026-07-01",
    ]
    assert read(texts, "iso", (), BERLIN) == [
        micros(datetime.fromisoformat(f"{text}+00:00"))
        for text in [
            "2026-01-01T11:00:00",
            "2026-07-01T10:00:00",
            "2026-03-29T00:59:59",
            "2026-03-29T01:30:00",
            "2026-03-29T01:00:00",
            "2026-10-25T00:30:00",
            "2026-10-25T02:00:00",
            "2026-07-01T12:00:00",
            "2026-07-01T15:00:00",
            "2026-06-30T22:00:00",
        ]
    ]


def test_what_the_zone_applies_to() -> None:
    noon = datetime(2026, 7, 1, 12)
    local = micros(datetime(2026, 7, 1, 10, tzinfo=UTC))
    assert read(pa.array([noon], pa.timestamp("ms")), "seconds", (), BERLIN) == [local]
    aware = pa.array([noon.replace(tzinfo=UTC)], pa.timestamp("ms", "America/Lima"))
    assert read(aware, "seconds", (), BERLIN) == [local + 2 * 3600 * 10**6]
    assert read(pa.array([date(2026, 7, 1)]), "iso", (), BERLIN) == [local - 12 * 3600 * 10**6]
    assert read([MIDNIGHT], "seconds", (), BERLIN) == [MIDNIGHT * 10**6]  # numbers are UTC
    assert read(["01.07.2026 12:00"], "pattern", ("%d.%m.%Y %H:%M",), BERLIN) == [local]


@given(st.datetimes(datetime(1990, 1, 1), datetime(2037, 1, 1)))
def test_local_times_are_those_of_pythons_zoneinfo(when: datetime) -> None:
    for zone in (BERLIN, "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe"):
        expected = micros(when.replace(tzinfo=ZoneInfo(zone), fold=0))
        assert read([when.isoformat()], "iso", (), zone) == [expected]


def test_days_have_the_length_that_clocks_give_them() -> None:
    hours = [(b - a) / 3.6e9 for a, b in (
        day_bounds("2026-03-29", BERLIN), day_bounds("2026-10-25", BERLIN),
        day_bounds("2026-11-24", "UTC"),
    )]  # fmt: skip
    assert hours == [23, 25, 24]
    assert day_bounds("2026-11-01", "UTC")[0] == MIDNIGHT * 10**6


ISO = st.one_of(
    st.datetimes(datetime(1, 1, 1), datetime(9999, 1, 1)).map(datetime.isoformat),
    st.text(st.sampled_from("0123-: T.Z+"), max_size=20),
    st.builds(
        "{}-{}-{}{}{}:{}{}".format,
        st.sampled_from(["2024", "2023", "1900", "2000", "999"]),
        st.sampled_from(["01", "02", "13", "00"]),
        st.sampled_from(["28", "29", "30", "31", "32", "00"]),
        st.sampled_from("T t"),
        st.sampled_from(["00", "23", "24", "7"]),
        st.sampled_from(["00", "59", "60"]),
        st.sampled_from(["", ":59", ":60", "Z", ":00Z", "+01:00", "+25:00", "-0160", ":00.5"]),
    ),
)


@given(st.lists(ISO, min_size=1, max_size=6))
def test_an_iso_time_never_depends_on_its_neighbours(texts: list[str]) -> None:
    alone = [read([text], "iso")[0] for text in texts]
    assert read([*texts, "2020-02-30", "2020-01-01"], "iso")[: len(texts)] == alone


@given(st.lists(st.text(st.sampled_from("+-.0123456789eEnNaAiIfFtTyYxX_()"), max_size=9)))
def test_numbers_are_those_that_arrow_reads_one_by_one(texts: list[str]) -> None:
    texts = [*texts, "no number"]  # so that the pattern is asked
    found, known = as_numbers(pa.array(texts), "w")
    alone = [try_cast(pa.array([text]), pa.float64())[0].as_py() for text in texts]
    assert known.tolist() == [one is not None for one in alone]
    np.testing.assert_array_equal(found[known], [one for one in alone if one is not None])


def test_iso_over_numbers_is_an_input_error() -> None:
    with pytest.raises(InputError, match=r"needs text"):
        read([5], "iso")
