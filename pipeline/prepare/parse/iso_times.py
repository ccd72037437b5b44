"""Times in ISO 8601 form, and local times in UTC."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import available_timezones

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from embedmill.pipeline.errors import ConfigError
from embedmill.pipeline.prepare.parse.values import null_unless, to_numpy, try_cast

__all__ = ["iso_microseconds", "local_to_utc", "parse_iso"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_ISO = (
    r"^(?:[0-9]{4})-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12][0-9]|3[01])"
    r"(?:[T ][0-9]{2}(?::[0-9]{2}(?::[0-9]{2}(?:\.[0-9]+)?)?)?(?:Z|[+-][0-9]{2}(?::?[0-9]{2})?)?)?$"
)
_ZONED = r"[T ].*(?:Z|[+-][0-9]{2}(?::?[0-9]{2})?)$"
_UTC_SUFFIX = r"([0-9]) ?(?:UTC|GMT|Z)$"
_OFFSET_SUFFIX = r"(:[0-9]{2}(?:\.[0-9]+)?) ([+-][0-9]{2}(?::?[0-9]{2})?)$"
# Java's ZonedDateTime names the zone after its offset.
_BRACKETED_ZONE = r"([0-9Z])\[[A-Za-z0-9_+/-]+\]$"
_NAMED_ZONE = r"^(?P<local>[0-9-]+[T ][0-9:.]+) (?P<zone>[A-Za-z_]+(?:/[A-Za-z0-9_+-]+)+)$"
_EXCESS_DIGITS = r"(\.[0-9]{6})[0-9]+"  # of fractions of a second, beyond microseconds


def iso_microseconds(text: str, where: str) -> int:
    """Microseconds since 1970 of an ISO time; UTC where it names no zone.

    Raises:
        ConfigError: `text` is no ISO time; `where` names the config key in the error.
    """
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError(f"'{text}' is not an ISO time", where=where) from None
    when = when if when.tzinfo else when.replace(tzinfo=UTC)
    return (when - _EPOCH) // timedelta(microseconds=1)


def parse_iso(column: pa.Array, zone: str) -> pa.Array:
    """ISO times as microseconds since 1970, UTC, [N]; null where the text is not one.

    Args:
        column: text, [N].
        zone: of times that name none; see `local_to_utc`.
    """
    text = column.cast(pa.string())
    times = _parse_strict(_strict_iso(text), zone)
    if times.null_count == text.null_count:
        return times
    return pc.coalesce(times, _parse_named_zones(text))


def _parse_named_zones(text: pa.Array) -> pa.Array:
    """Times with the name of their zone after a blank, as Trino writes them, [N]; null for others.

    Zones that this machine does not know give null.
    """
    parts = pc.extract_regex(text, _NAMED_ZONE)
    local, zones = pc.struct_field(parts, "local"), pc.struct_field(parts, "zone")
    times = pa.nulls(len(text), pa.int64())
    for zone in zones.unique().drop_null().to_pylist():
        if zone not in available_timezones():
            continue
        mine = null_unless(local, pc.fill_null(pc.equal(zones, zone), False))
        times = pc.coalesce(times, _parse_strict(_strict_iso(mine), zone))
    return times


def _parse_strict(column: pa.Array, zone: str) -> pa.Array:
    """Times in strict ISO form as microseconds since 1970, UTC, [N]; null where it is none."""
    column = pc.replace_substring_regex(column, _EXCESS_DIGITS, r"\1")
    zoned = pc.fill_null(pc.match_substring_regex(column, _ZONED), False)
    parts = []
    if pc.any(zoned).as_py():
        parts.append(
            _cast_iso(null_unless(column, zoned), pa.timestamp("us", "UTC")).cast(pa.int64())
        )
    if len(column) and not pc.all(zoned).as_py():
        parts.append(
            local_to_utc(_cast_iso(null_unless(column, pc.invert(zoned)), pa.timestamp("us")), zone)
        )
    return pc.coalesce(*parts) if parts else pa.nulls(len(column), pa.int64())


def _strict_iso(column: pa.Array) -> pa.Array:
    """The text in strict ISO form, null where it is not one.

    BigQuery, Snowflake and Trino write a blank before the zone, and UTC or GMT for Z; Java writes
    the zone's name in brackets after its offset.
    """
    strict = pc.fill_null(pc.match_substring_regex(column, _ISO), False)
    if pc.all(strict).as_py():
        return column
    rest = null_unless(column, pc.invert(strict))
    rest = pc.replace_substring_regex(rest, _BRACKETED_ZONE, r"\1")
    rest = pc.replace_substring_regex(rest, _UTC_SUFFIX, r"\1Z")
    rest = pc.replace_substring_regex(rest, _OFFSET_SUFFIX, r"\1\2")
    rest = null_unless(rest, pc.match_substring_regex(rest, _ISO))
    return pc.coalesce(null_unless(column, strict), rest)


def _cast_iso(column: pa.Array, kind: pa.DataType) -> pa.Array:
    """ISO text as timestamps, null where there is no such day or time.

    These are only looked for once Arrow's cast has failed, since that is slow.
    """
    try:
        return column.cast(kind)
    except pa.ArrowInvalid:
        year, month, day = (
            to_numpy(pc.utf8_slice_codeunits(column, *at).cast(pa.int32()).fill_null(1))
            for at in ((0, 4), (5, 7), (8, 10))
        )
        leap = (year % 4 == 0) & ((year % 100 != 0) | (year % 400 == 0))
        last_day = np.array([31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31])[month - 1]
        exists = day <= last_day + (leap & (month == 2))
        time_of_day = r"[T ](?:[01][0-9]|2[0-3])(?:$|[^:0-9]|:[0-5][0-9](?:$|[^:0-9]|:[0-5][0-9]))"
        zone_regex = r"(?:Z|[+-](?:[01][0-9]|2[0-3])(?::?[0-5][0-9])?)$"
        hours = pc.or_(
            pc.equal(pc.binary_length(column), 10), pc.match_substring_regex(column, time_of_day)
        )
        zones = pc.match_substring_regex(column, zone_regex) if getattr(kind, "tz", None) else hours
        return try_cast(null_unless(column, pc.and_(pa.array(exists), pc.and_(hours, zones))), kind)


def local_to_utc(local: pa.Array, zone: str) -> pa.Array:
    """Local timestamps as microseconds since 1970, UTC.

    Where clocks are set back, a local time that occurs twice is the first of the two; where they
    are set forward, a local time that is skipped is read with the offset before the change (RFC
    5545, section 3.3.5).
    """
    wall = local.cast(pa.int64())
    if zone == "UTC":
        return wall
    # For a skipped local time, `earliest` gives the last instant before the clock change, whose
    # offset is the one to use.
    instants = pc.assume_timezone(local, zone, ambiguous="earliest", nonexistent="earliest")
    wall_of_instants = pc.local_timestamp(instants).cast(pa.int64())
    offset = pc.subtract(wall_of_instants, instants.cast(pa.int64()))
    return pc.subtract(wall, offset)
