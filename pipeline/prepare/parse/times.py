"""Times of a log as microseconds since 1970, UTC.

A time without a zone is local to `events.time_zone`. Where clocks are set back, a local time that
occurs twice is the first of the two; where they are set forward, a local time that is skipped is
read with the offset before the change (RFC 5545, section 3.3.5). Numbers count from 1970, UTC,
whatever the zone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from embedmill.pipeline.errors import ConfigError, InputError
from embedmill.pipeline.prepare.parse.iso_times import iso_microseconds, local_to_utc, parse_iso
from embedmill.pipeline.prepare.parse.time_patterns import check_pattern, parse_pattern
from embedmill.pipeline.prepare.parse.values import (
    Ints,
    Mask,
    as_numbers,
    decode_dictionary,
    is_text,
    null_unless,
    to_numpy,
    try_cast,
)

__all__ = [
    "ParsedTimes",
    "TimeFormat",
    "day_bounds",
    "iso_microseconds",
    "parse_times",
    "time_format_of",
]

Floats = npt.NDArray[np.float64]
_INT64 = 2**63 - 1
_PER_UNIT = {"seconds": 1_000_000.0, "milliseconds": 1_000.0, "microseconds": 1.0,
             "nanoseconds": 0.001}  # fmt: skip
# Upper bounds by which the unit of a number is guessed: 1e11 seconds is the year 5138, while 1e11
# milliseconds is 1973.
_MAGNITUDES = ((1e11, "seconds"), (1e14, "milliseconds"), (1e17, "microseconds"))
_NUMBER = r"^-?[0-9]+(?:\.[0-9]*)?$"


@dataclass(frozen=True)
class TimeFormat:
    """How the times of a log are written: `events.time_unit`, `time_patterns` and `time_zone`."""

    unit: str
    patterns: tuple[str, ...] = ()
    zone: str = "UTC"


@dataclass(frozen=True)
class ParsedTimes:
    """Times of N records.

    Attributes:
        values: microseconds since 1970, UTC, [N].
        known: whether there is a time, [N].
        in_range: whether it fits into 64 bits, [N].
    """

    values: Ints
    known: Mask
    in_range: Mask


def time_format_of(unit: str, patterns: tuple[str, ...], zone: str) -> TimeFormat:
    """The time format of a config, checked.

    Raises:
        ConfigError: the zone is not known, or a pattern cannot be used.
    """
    try:
        if zone != "UTC":  # UTC needs no database of time zones
            pc.assume_timezone(pa.array([0], pa.timestamp("us")), zone)
    except (pa.ArrowInvalid, pa.ArrowKeyError, OSError):
        raise ConfigError(
            f"no time zone '{zone}' is known on this machine",
            where="events.time_zone",
            todo="Write it as 'Europe/Berlin', and see that tzdata is installed",
        ) from None
    for pattern in patterns:
        check_pattern(pattern)
    return TimeFormat(unit, patterns, zone)


def day_bounds(day: str, zone: str) -> tuple[int, int]:
    """The microseconds at which a day, written as 2026-11-24, and the day after it begin."""
    first = date.fromisoformat(day)
    texts = pa.array([first, first + timedelta(days=1)]).cast(pa.timestamp("us"))
    start, end = local_to_utc(texts, zone).to_pylist()
    return start, end


def parse_times(column: pa.Array, name: str, time_format: TimeFormat) -> ParsedTimes:
    """The times of a column, whatever type the file stores them in.

    Args:
        column: [N].
        name: of the column, for errors.
        time_format: how times are written; columns of Parquet's time types need none.

    Raises:
        InputError: the type cannot hold what `events.time_unit` says.
    """
    column = decode_dictionary(column)
    kind = column.type
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        zone = getattr(kind, "tz", None)
        times = column.cast(pa.timestamp("us", zone), safe=False)
        return _parsed(times.cast(pa.int64()) if zone else local_to_utc(times, time_format.zone))
    return _PARSERS[time_format.unit](column, name, time_format)


def _parse_iso(column: pa.Array, name: str, time_format: TimeFormat) -> ParsedTimes:
    if pa.types.is_null(column.type):
        return _parsed(pa.nulls(len(column), pa.int64()))
    if not is_text(column.type):
        raise InputError(
            f"column '{name}' is {column.type}; events.time_unit = 'iso' needs text",
            todo="'auto' takes numbers in one file and ISO in another",
        )
    return _parsed(parse_iso(column, time_format.zone))


def _parse_patterns(column: pa.Array, name: str, time_format: TimeFormat) -> ParsedTimes:
    if not is_text(column.type):  # numbers such as 20261124
        column = column.cast(pa.string())
    return _parsed(_from_patterns(column, time_format))


def _parse_numbers(column: pa.Array, name: str, time_format: TimeFormat) -> ParsedTimes:
    if is_text(column.type) and time_format.unit == "nanoseconds":
        column = _whole_numbers(column)  # float64 does not hold their last digits
    if pa.types.is_integer(column.type):
        return _scaled(column, np.full(len(column), _PER_UNIT[time_format.unit]))
    numbers, known = as_numbers(column, name)
    return _rounded(numbers, known, np.full(len(numbers), _PER_UNIT[time_format.unit]))


def _parse_any(column: pa.Array, name: str, time_format: TimeFormat) -> ParsedTimes:
    """Numbers, also as text, by their magnitude; other text as ISO times, else by patterns."""
    if not is_text(column.type):
        if pa.types.is_integer(column.type):
            return _scaled(column, _guess_scale(to_numpy(column.cast(pa.float64(), safe=False))))
        floats, known = as_numbers(column, name)
        return _rounded(floats, known, _guess_scale(floats))
    column = column.cast(pa.string())
    digits = pc.fill_null(pc.match_substring_regex(column, _NUMBER), False)
    if pc.all(digits).as_py():
        return _by_magnitude(column)
    numbers = _by_magnitude(null_unless(column, digits))
    words = null_unless(column, pc.invert(digits))
    times = parse_iso(words, time_format.zone)
    if time_format.patterns:
        rest = null_unless(words, times.is_null())
        times = pc.coalesce(times, _from_patterns(rest, time_format))
    other = _parsed(times)
    return ParsedTimes(
        np.where(numbers.known, numbers.values, other.values),
        numbers.known | other.known,
        numbers.in_range,
    )


def _by_magnitude(column: pa.Array) -> ParsedTimes:
    """Numbers as text; the unit of each is guessed from its magnitude."""
    numbers, known = as_numbers(column, "")
    scale = _guess_scale(numbers)
    times = _rounded(numbers, known, scale)
    nanos = known & (scale == _PER_UNIT["nanoseconds"])
    if nanos.any():  # float64 does not hold their last digits
        exact = _parse_numbers(null_unless(column, pa.array(nanos)), "", TimeFormat("nanoseconds"))
        times = ParsedTimes(
            np.where(nanos, exact.values, times.values),
            np.where(nanos, exact.known, times.known),
            np.where(nanos, exact.in_range, times.in_range),
        )
    return times


_PARSERS: dict[str, Callable[[pa.Array, str, TimeFormat], ParsedTimes]] = {
    "iso": _parse_iso,
    "seconds": _parse_numbers,
    "milliseconds": _parse_numbers,
    "microseconds": _parse_numbers,
    "nanoseconds": _parse_numbers,
    "auto": _parse_any,
    "pattern": _parse_patterns,
}


def _parsed(values: pa.Array) -> ParsedTimes:
    known = to_numpy(values.is_valid()).astype(bool)
    return ParsedTimes(to_numpy(values.fill_null(0)), known, np.ones(len(values), bool))


def _guess_scale(numbers: Floats) -> Floats:
    """Microseconds per unit of each number, [N], the unit guessed from its magnitude."""
    bounds = [bound for bound, _ in _MAGNITUDES]
    units = [_PER_UNIT[unit] for _, unit in _MAGNITUDES] + [_PER_UNIT["nanoseconds"]]
    size = np.nan_to_num(np.abs(numbers), nan=0.0, posinf=0.0)
    return np.array(units)[np.searchsorted(bounds, size, side="right")]


def _scaled(column: pa.Array, scale: Floats) -> ParsedTimes:
    """Times from whole numbers, exactly.

    Args:
        column: whole numbers, [N].
        scale: microseconds per unit, [N].
    """
    if pa.types.is_uint64(column.type):
        column = try_cast(column, pa.int64())
    numbers = _parsed(column.cast(pa.int64(), safe=False))
    in_range = np.abs(numbers.values.astype(np.float64)) * scale <= _INT64 * 0.999
    factor = np.maximum(scale, 1.0).astype(np.int64)
    values = np.where(in_range, numbers.values, 0) * factor
    nanos = scale < 1.0
    if nanos.any():
        values[nanos] = numbers.values[nanos] // 1000
    return ParsedTimes(values, numbers.known, in_range)


def _rounded(numbers: Floats, known: Mask, scale: Floats) -> ParsedTimes:
    """Times from floats, rounded to microseconds.

    Args:
        numbers: [N].
        known: whether there is a number, [N].
        scale: microseconds per unit, [N].
    """
    known = known & ~np.isnan(numbers)
    scaled = np.rint(np.nan_to_num(numbers, posinf=np.inf, neginf=-np.inf) * scale)
    in_range = np.abs(scaled) <= _INT64 * 0.999
    return ParsedTimes(np.where(in_range, scaled, 0).astype(np.int64), known, in_range)


def _whole_numbers(column: pa.Array) -> pa.Array:
    """Text as whole numbers of 64 bits, null where it is not one."""
    digits = pc.match_substring_regex(column, r"^-?(?:[0-9]{1,18}|[1-8][0-9]{18})$")
    return try_cast(null_unless(column, digits), pa.int64())


def _from_patterns(column: pa.Array, time_format: TimeFormat) -> pa.Array:
    """Microseconds by the first pattern that matches, null where none does."""
    times = pa.nulls(len(column), pa.int64())
    for pattern in time_format.patterns:
        rest = null_unless(column, times.is_null())
        if rest.null_count == len(rest):
            break
        values, in_utc = parse_pattern(rest, pattern)
        if not in_utc:
            values = local_to_utc(values.cast(pa.timestamp("us")), time_format.zone)
        times = pc.coalesce(times, values)
    return times
