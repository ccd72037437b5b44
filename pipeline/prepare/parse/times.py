"""Times of a log as microseconds since 1970, UTC.

A time that names no zone is local to `events.time_zone`. Where clocks are set back, the first
of the two instants is meant; a time that clocks set forward skipped is read with the offset
before (RFC 5545, section 3.3.5). Numbers count from 1970, UTC, whatever the zone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from embedmill.pipeline.errors import ConfigError, InputError
from embedmill.pipeline.prepare.parse.time_patterns import check_pattern, read_pattern
from embedmill.pipeline.prepare.parse.values import (
    Mask,
    as_array,
    as_numbers,
    is_text,
    only,
    plain,
    try_cast,
)

__all__ = ["Clock", "Times", "clock", "day_bounds", "iso_microseconds", "microseconds"]

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_INT64 = 2**63 - 1
_PER_UNIT = {"seconds": 1_000_000.0, "milliseconds": 1_000.0, "microseconds": 1.0,
             "nanoseconds": 0.001}  # fmt: skip
# Of a number of unknown unit: below 1e11 seconds lie 5,138 years; 1e11 milliseconds are 1973.
_MAGNITUDES = ((1e11, "seconds"), (1e14, "milliseconds"), (1e17, "microseconds"))
_ISO = (
    r"^(?:[0-9]{4})-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12][0-9]|3[01])"
    r"(?:[T ][0-9]{2}(?::[0-9]{2}(?::[0-9]{2}(?:\.[0-9]+)?)?)?(?:Z|[+-][0-9]{2}(?::?[0-9]{2})?)?)?$"
)
_ZONED = r"[T ].*(?:Z|[+-][0-9]{2}(?::?[0-9]{2})?)$"
_FINER = r"(\.[0-9]{6})[0-9]+"  # than a microsecond
_NUMBER = r"^-?[0-9]+(?:\.[0-9]*)?$"


@dataclass(frozen=True)
class Clock:
    """How the times of a log are to be read."""

    unit: str
    patterns: tuple[str, ...] = ()
    zone: str = "UTC"


@dataclass(frozen=True)
class Times:
    """Microseconds since 1970, where there is a time, and where it fits 64 bits."""

    values: Ints
    known: Mask
    within: Mask


def clock(unit: str, patterns: tuple[str, ...], zone: str) -> Clock:
    """A clock of the config.

    Raises:
        ConfigError: the zone is not known, or a pattern cannot be used.
    """
    try:
        if zone != "UTC":  # which needs no data base of zones
            pc.assume_timezone(pa.array([0], pa.timestamp("us")), zone)
    except (pa.ArrowInvalid, pa.ArrowKeyError, OSError):
        raise ConfigError(
            f"no time zone '{zone}' is known on this machine",
            where="events.time_zone",
            todo="Write it as 'Europe/Berlin', and see that tzdata is installed",
        ) from None
    for pattern in patterns:
        check_pattern(pattern)
    return Clock(unit, patterns, zone)


def iso_microseconds(text: str, where: str) -> int:
    """Microseconds since 1970 of an ISO time; UTC where it names no zone.

    Raises:
        ConfigError: it is no ISO time.
    """
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError(f"'{text}' is not an ISO time", where=where) from None
    when = when if when.tzinfo else when.replace(tzinfo=UTC)
    return (when - _EPOCH) // timedelta(microseconds=1)


def day_bounds(day: str, zone: str) -> tuple[int, int]:
    """The microseconds at which a day of ISO form begins and the next one does."""
    first = date.fromisoformat(day)
    texts = pa.array([first, first + timedelta(days=1)]).cast(pa.timestamp("us"))
    start, end = _utc(texts, zone).to_pylist()
    return start, end


def microseconds(column: pa.Array, name: str, clock: Clock) -> Times:
    """The times of a column, whatever type the file has it in.

    Raises:
        InputError: the type cannot hold what `events.time_unit` says.
    """
    column = plain(column)
    kind = column.type
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        zone = getattr(kind, "tz", None)
        found = column.cast(pa.timestamp("us", zone), safe=False)
        return _times(found.cast(pa.int64()) if zone else _utc(found, clock.zone))
    return _READERS[clock.unit](column, name, clock)


def _iso(column: pa.Array, name: str, clock: Clock) -> Times:
    if pa.types.is_null(column.type):
        return _times(pa.nulls(len(column), pa.int64()))
    if not is_text(column.type):
        raise InputError(
            f"column '{name}' is {column.type}; events.time_unit = 'iso' needs text",
            todo="'auto' takes numbers in one file and ISO in another",
        )
    return _times(_from_iso(column, clock.zone))


def _pattern(column: pa.Array, name: str, clock: Clock) -> Times:
    if not is_text(column.type):  # numbers such as 20261124
        column = column.cast(pa.string())
    return _times(_from_patterns(column, clock))


def _number(column: pa.Array, name: str, clock: Clock) -> Times:
    if is_text(column.type) and clock.unit == "nanoseconds":
        column = _whole(column)  # as floats they would not be exact
    if pa.types.is_integer(column.type):
        return _scaled(column, np.full(len(column), _PER_UNIT[clock.unit]))
    numbers, known = as_numbers(column, name)
    return _rounded(numbers, known, np.full(len(numbers), _PER_UNIT[clock.unit]))


def _auto(column: pa.Array, name: str, clock: Clock) -> Times:
    """Numbers by their magnitude, also as text; other text as ISO or by patterns."""
    if not is_text(column.type):
        if pa.types.is_integer(column.type):
            return _scaled(column, _magnitude(as_array(column.cast(pa.float64(), safe=False))))
        floats, known = as_numbers(column, name)
        return _rounded(floats, known, _magnitude(floats))
    column = column.cast(pa.string())
    digits = pc.fill_null(pc.match_substring_regex(column, _NUMBER), False)
    if pc.all(digits).as_py():
        return _by_size(column)
    numbers = _by_size(only(column, digits))
    words = only(column, pc.invert(digits))
    found = _from_iso(words, clock.zone)
    if clock.patterns:
        rest = only(words, found.is_null())
        found = pc.coalesce(found, _from_patterns(rest, clock))
    other = _times(found)
    return Times(
        np.where(numbers.known, numbers.values, other.values),
        numbers.known | other.known,
        numbers.within,
    )


def _by_size(column: pa.Array) -> Times:
    """Numbers as text, nanoseconds exactly."""
    numbers, known = as_numbers(column, "")
    scale = _magnitude(numbers)
    found = _rounded(numbers, known, scale)
    fine = known & (scale == _PER_UNIT["nanoseconds"])
    if fine.any():
        exact = _number(only(column, pa.array(fine)), "", Clock("nanoseconds"))
        found = Times(
            np.where(fine, exact.values, found.values),
            np.where(fine, exact.known, found.known),
            np.where(fine, exact.within, found.within),
        )
    return found


_READERS: dict[str, Callable[[pa.Array, str, Clock], Times]] = {
    "iso": _iso,
    "seconds": _number,
    "milliseconds": _number,
    "microseconds": _number,
    "nanoseconds": _number,
    "auto": _auto,
    "pattern": _pattern,
}


def _times(values: pa.Array) -> Times:
    known = as_array(values.is_valid()).astype(bool)
    return Times(as_array(values.fill_null(0)), known, np.ones(len(values), bool))


def _magnitude(numbers: Floats) -> Floats:
    """Microseconds per unit that each number is most likely in."""
    bounds = [bound for bound, _ in _MAGNITUDES]
    units = [_PER_UNIT[unit] for _, unit in _MAGNITUDES] + [_PER_UNIT["nanoseconds"]]
    size = np.nan_to_num(np.abs(numbers), nan=0.0, posinf=0.0)
    return np.array(units)[np.searchsorted(bounds, size, side="right")]


def _scaled(column: pa.Array, scale: Floats) -> Times:
    """Whole numbers, exactly; those beyond 64 bits are not within."""
    if pa.types.is_uint64(column.type):
        column = try_cast(column, pa.int64())
    found = _times(column.cast(pa.int64(), safe=False))
    within = np.abs(found.values.astype(np.float64)) * scale <= _INT64 * 0.999
    factor = np.maximum(scale, 1.0).astype(np.int64)
    values = np.where(within, found.values, 0) * factor
    fine = scale < 1.0
    if fine.any():
        values[fine] = found.values[fine] // 1000
    return Times(values, found.known, within)


def _rounded(numbers: Floats, known: Mask, scale: Floats) -> Times:
    known = known & ~np.isnan(numbers)
    scaled = np.rint(np.nan_to_num(numbers, posinf=np.inf, neginf=-np.inf) * scale)
    within = np.abs(scaled) <= _INT64 * 0.999
    return Times(np.where(within, scaled, 0).astype(np.int64), known, within)


def _whole(column: pa.Array) -> pa.Array:
    """Text as whole numbers of 64 bits, null where it is none."""
    digits = pc.match_substring_regex(column, r"^-?(?:[0-9]{1,18}|[1-8][0-9]{18})$")
    return try_cast(only(column, digits), pa.int64())


def _from_iso(column: pa.Array, zone: str) -> pa.Array:
    """ISO times as microseconds, null where it is none."""
    column = column.cast(pa.string())
    column = only(column, pc.match_substring_regex(column, _ISO))
    column = pc.replace_substring_regex(column, _FINER, r"\1")
    zoned = pc.fill_null(pc.match_substring_regex(column, _ZONED), False)
    parts = []
    if pc.any(zoned).as_py():
        parts.append(_cast(only(column, zoned), pa.timestamp("us", "UTC")).cast(pa.int64()))
    if len(column) and not pc.all(zoned).as_py():
        parts.append(_utc(_cast(only(column, pc.invert(zoned)), pa.timestamp("us")), zone))
    return pc.coalesce(*parts) if parts else pa.nulls(len(column), pa.int64())


def _cast(column: pa.Array, kind: pa.DataType) -> pa.Array:
    """ISO text to timestamps; days that a month does not have are looked for once it fails."""
    try:
        return column.cast(kind)
    except pa.ArrowInvalid:
        year, month, day = (
            as_array(pc.utf8_slice_codeunits(column, *at).cast(pa.int32()).fill_null(1))
            for at in ((0, 4), (5, 7), (8, 10))
        )
        leap = (year % 4 == 0) & ((year % 100 != 0) | (year % 400 == 0))
        most = np.array([31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31])[month - 1]
        real = day <= most + (leap & (month == 2))
        in_day = r"[T ](?:[01][0-9]|2[0-3])(?:$|[^:0-9]|:[0-5][0-9](?:$|[^:0-9]|:[0-5][0-9]))"
        ends = r"(?:Z|[+-](?:[01][0-9]|2[0-3])(?::?[0-5][0-9])?)$"
        hours = pc.or_(
            pc.equal(pc.binary_length(column), 10), pc.match_substring_regex(column, in_day)
        )
        zones = pc.match_substring_regex(column, ends) if getattr(kind, "tz", None) else hours
        return try_cast(only(column, pc.and_(pa.array(real), pc.and_(hours, zones))), kind)


def _utc(local: pa.Array, zone: str) -> pa.Array:
    """Timestamps without a zone as microseconds since 1970 UTC, as the module says."""
    wall = local.cast(pa.int64())
    if zone == "UTC":
        return wall
    # In a gap `earliest` is the last instant before it, whose offset is the one to use.
    known = pc.assume_timezone(local, zone, ambiguous="earliest", nonexistent="earliest")
    offset = pc.subtract(pc.local_timestamp(known).cast(pa.int64()), known.cast(pa.int64()))
    return pc.subtract(wall, offset)


def _from_patterns(column: pa.Array, clock: Clock) -> pa.Array:
    """Microseconds by the first pattern that reads the text, null where none does."""
    found = pa.nulls(len(column), pa.int64())
    for pattern in clock.patterns:
        rest = only(column, found.is_null())
        if rest.null_count == len(rest):
            break
        values, in_utc = read_pattern(rest, pattern)
        if not in_utc:
            values = _utc(values.cast(pa.timestamp("us")), clock.zone)
        found = pc.coalesce(found, values)
    return found
