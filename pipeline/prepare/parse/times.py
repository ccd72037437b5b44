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
import pyarrow as pa
import pyarrow.compute as pc

from embedmill.pipeline.errors import ConfigError, InputError
from embedmill.pipeline.prepare.parse.iso_times import iso_microseconds, local_to_utc, parse_iso
from embedmill.pipeline.prepare.parse.mixed import Column, parts_of
from embedmill.pipeline.prepare.parse.numbers import as_numbers, as_plain_text
from embedmill.pipeline.prepare.parse.time_patterns import check_pattern, parse_pattern
from embedmill.pipeline.prepare.parse.values import (
    Floats,
    Ints,
    Mask,
    is_text,
    null_unless,
    plain_values,
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

_PER_TIMESTAMP = {"s": 1e6, "ms": 1e3, "us": 1.0, "ns": 0.001}
_INT64 = 2**63 - 1
_PER_UNIT = {"seconds": 1_000_000.0, "milliseconds": 1_000.0, "microseconds": 1.0,
             "nanoseconds": 0.001}  # fmt: skip
# Upper bounds by which the unit of a number is guessed: 1e11 seconds is the year 5138, while 1e11
# milliseconds is 1973.
_MAGNITUDES = ((1e11, "seconds"), (1e14, "milliseconds"), (1e17, "microseconds"))
_NUMBER = r"^[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?$"
# Years 1 to 9999, the ones for which time zones are known: local times outside are out of range.
_YEARS = (-62_135_596_800_000_000, 253_402_300_799_999_999)


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

    def or_else(self, other: ParsedTimes) -> ParsedTimes:
        """These times, and where there is none, those of `other`."""
        return ParsedTimes(
            np.where(self.known, self.values, other.values),
            self.known | other.known,
            np.where(self.known, self.in_range, other.in_range),
        )


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


def parse_times(column: Column, name: str, time_format: TimeFormat) -> ParsedTimes:
    """The times of a column, whatever type the file stores them in.

    Args:
        column: [N].
        name: of the column, for errors.
        time_format: how times are written; values of Parquet's time types need none.

    Raises:
        InputError: the type cannot hold what `events.time_unit` says.
    """
    found = [_parse_part(plain_values(part), name, time_format) for part in parts_of(column)]
    times = found[0]
    for other in found[1:]:
        times = times.or_else(other)
    return times


def _parse_part(column: pa.Array, name: str, time_format: TimeFormat) -> ParsedTimes:
    """The times of values of one type."""
    kind = column.type
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        return _parse_typed(column, time_format.zone)
    if pa.types.is_decimal(kind):  # as text: a float does not hold all of their digits
        column = as_plain_text(column)
    return _PARSERS[time_format.unit](column, name, time_format)


def _parse_typed(column: pa.Array, zone: str) -> ParsedTimes:
    """Times of Parquet's own types, which have a unit, and a zone or none."""
    kind = column.type
    if pa.types.is_date(kind):
        storage, scale = (pa.int32(), 86_400e6) if pa.types.is_date32(kind) else (pa.int64(), 1e3)
    else:
        storage, scale = pa.int64(), _PER_TIMESTAMP[kind.unit]
    numbers = column.cast(storage).cast(pa.int64())
    times = _parsed(numbers) if scale == 1.0 else _scaled(numbers, np.full(len(column), scale))
    if getattr(kind, "tz", None) or zone == "UTC":
        return times
    in_years = (times.values >= _YEARS[0]) & (times.values <= _YEARS[1])
    local = pa.array(np.where(in_years, times.values, 0)).cast(pa.timestamp("us"))
    in_range = times.in_range & in_years
    return ParsedTimes(to_numpy(local_to_utc(local, zone)), times.known, in_range)


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
        column = as_plain_text(column)
    return _parsed(_from_patterns(column, time_format))


def _parse_numbers(column: pa.Array, name: str, time_format: TimeFormat) -> ParsedTimes:
    scale = np.full(len(column), _PER_UNIT[time_format.unit])
    if is_text(column.type) and time_format.unit == "nanoseconds":
        # float64 does not hold their last digits
        whole = _scaled(_whole_numbers(column), scale)
        if whole.known.all():
            return whole
        numbers, known = as_numbers(column, name)  # with an exponent
        return whole.or_else(_rounded(numbers, known & (np.floor(numbers) == numbers), scale))
    if pa.types.is_integer(column.type):
        return _scaled(column, scale)
    return _rounded(*as_numbers(column, name), scale)


def _parse_any(column: pa.Array, name: str, time_format: TimeFormat) -> ParsedTimes:
    """Times by the first pattern that matches; else numbers, also as text, by their magnitude;
    else ISO times.
    """
    if time_format.patterns:
        text = column if is_text(column.type) else as_plain_text(column)
        times = _from_patterns(text, time_format)
        rest = null_unless(column, times.is_null())
        return _parsed(times).or_else(_parse_unpatterned(rest, name, time_format))
    return _parse_unpatterned(column, name, time_format)


def _parse_unpatterned(column: pa.Array, name: str, time_format: TimeFormat) -> ParsedTimes:
    if not is_text(column.type):
        if pa.types.is_integer(column.type):
            return _scaled(column, _guess_scale(to_numpy(column.cast(pa.float64(), safe=False))))
        floats, known = as_numbers(column, name)
        return _rounded(floats, known, _guess_scale(floats))
    digits = pc.fill_null(pc.match_substring_regex(column, _NUMBER), False)
    if pc.all(digits).as_py():
        return _by_magnitude(column)
    numbers = _by_magnitude(null_unless(column, digits))
    words = null_unless(column, pc.invert(digits))
    return numbers.or_else(_parsed(parse_iso(words, time_format.zone)))


def _by_magnitude(column: pa.Array) -> ParsedTimes:
    """Numbers as text; the unit of each is guessed from its magnitude."""
    numbers, known = as_numbers(column, "")
    scale = _guess_scale(numbers)
    times = _rounded(numbers, known, scale)
    nanos = known & (scale == _PER_UNIT["nanoseconds"])
    if nanos.any():  # float64 does not hold their last digits
        rest = null_unless(column, pa.array(nanos))
        times = _parse_numbers(rest, "", TimeFormat("nanoseconds")).or_else(times)
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
    column = pc.replace_substring_regex(column, r"\.0*$", "")
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
