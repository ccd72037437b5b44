"""Times by strptime patterns, a column at a time.

Arrow's strptime is that of the C library: it parses 31 February as 3 March, depends on the
machine's locale and has no fractions of a second. Here a pattern becomes a regular expression,
names of months are English, and a day that does not exist is no time.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from embedmill.pipeline.errors import ConfigError
from embedmill.pipeline.prepare.parse.values import Ints, Mask, to_numpy

__all__ = ["check_pattern", "parse_pattern"]

_TWO_DIGITS = "[0-9]{1,2}"
_DIRECTIVES: dict[str, str] = {
    "Y": "(?P<Y>[0-9]{4})",
    "y": "(?P<y>[0-9]{2})",
    "m": f"(?P<m>{_TWO_DIGITS})",
    "b": "(?P<b>[A-Za-z]{3})",
    "B": "(?P<b>[A-Za-z]{3})[a-z]*",
    "d": f"(?P<d>{_TWO_DIGITS})",
    "e": f" ?(?P<d>{_TWO_DIGITS})",
    "j": "(?P<j>[0-9]{1,3})",
    "H": f"(?P<H>{_TWO_DIGITS})",
    "I": f"(?P<I>{_TWO_DIGITS})",
    "p": "(?P<p>[AaPp])[Mm]",
    "M": f"(?P<M>{_TWO_DIGITS})",
    "S": f"(?P<S>{_TWO_DIGITS})",
    "f": "(?P<f>[0-9]{1,9})",
    "z": "(?P<z>Z|[+-][0-9]{2}(?::?[0-9]{2})?)",
    "Z": "(?P<Z>[A-Za-z]{1,4})",
    "a": "[A-Za-z]{3}",
    "A": "[A-Za-z]+",
    "%": "%",
}
_ABBREVIATIONS = {"F": "%Y-%m-%d", "T": "%H:%M:%S", "R": "%H:%M", "D": "%m/%d/%y"}
_MONTHS = pa.array(
    ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
)
# Hours by which zones are ahead of UTC, by the names that RFC 5322, section 4.3 has for them.
_ZONES = {
    "UTC": 0, "GMT": 0, "UT": 0, "Z": 0, "EST": -5, "EDT": -4, "CST": -6, "CDT": -5, "MST": -7,
    "MDT": -6, "PST": -8, "PDT": -7,
}  # fmt: skip
_LITERAL_UTC = re.compile(r"(?:^|[^A-Za-z])(?:UTC|GMT)(?:$|[^A-Za-z])|^\.?0*Z$")
_MAXIMA = {"H": 23, "M": 59, "S": 59}
_DAY, _HOUR, _MINUTE, _SECOND = 86_400_000_000, 3_600_000_000, 60_000_000, 1_000_000


def check_pattern(pattern: str) -> None:
    """Raise ConfigError unless the pattern is valid and determines the day."""
    groups = re.compile(_regex(pattern)).groupindex
    month = "m" in groups or "b" in groups
    if not ({"Y", "y"} & set(groups) and ("j" in groups or (month and "d" in groups))):
        raise ConfigError(
            f"'{pattern}' does not say which day it is: year, month and day are needed",
            where="events.time_patterns",
        )


def parse_pattern(column: pa.Array, pattern: str) -> tuple[pa.Array, bool]:
    """Microseconds since 1970, [N], null where the text does not match; and whether they are UTC.

    They are UTC where the pattern has `%z` or `%Z`, or UTC, GMT or Z as they stand, else local.
    """
    matches = pc.extract_regex(column, _regex(pattern))
    parts = {group.name: pc.struct_field(matches, group.name) for group in matches.type}
    numbers = {name: _number(part) for name, part in parts.items() if name in "YymdjHIMS"}
    matched = to_numpy(matches.is_valid()).astype(bool)
    days, day_exists = _days(numbers, parts)
    since_midnight, time_exists = _time_of_day(numbers, parts, len(column))
    offset, zone_exists = _utc_offset(parts, len(column))
    micros = days * _DAY + since_midnight - offset
    exists = matched & day_exists & time_exists & zone_exists
    return pa.array(micros, mask=~exists), bool({"z", "Z"} & set(parts)) or _names_utc(pattern)


def _names_utc(pattern: str) -> bool:
    """Whether UTC, GMT or Z stands in a pattern as it is: `%Y-%m-%dT%H:%M:%SZ`."""
    return any(_LITERAL_UTC.search(piece) for piece in re.split(r"%.", pattern))


def _regex(pattern: str) -> str:
    """The regular expression of a pattern."""
    for short, long in _ABBREVIATIONS.items():
        pattern = pattern.replace(f"%{short}", long)
    pieces, seen = [], set()
    for piece in re.findall(r"%.?|[^%]+", pattern, re.DOTALL):
        if not piece.startswith("%"):
            pieces.append(re.escape(piece))
            continue
        known = _DIRECTIVES.get(piece[1:])
        if known is None or (piece in seen and "?P<" in known):
            what = "is there twice" if known else f"is unknown; there are {', '.join(_DIRECTIVES)}"
            raise ConfigError(f"'{piece}' in '{pattern}' {what}", where="events.time_patterns")
        seen.add(piece)
        pieces.append(known)
    return f"^{''.join(pieces)}$"


def _number(part: pa.Array) -> Ints:
    numbers: Ints = to_numpy(pc.fill_null(part, "0").cast(pa.int64()))
    return numbers


def _days(numbers: Mapping[str, Ints], parts: Mapping[str, pa.Array]) -> tuple[Ints, Mask]:
    """Days since 1970, and whether the day exists."""
    if "Y" in numbers:
        year = numbers["Y"]
    else:  # as POSIX defines %y
        year = numbers["y"] + np.where(numbers["y"] < 69, 2000, 1900)
    if "j" in numbers:
        start, next_start = _first_day(year * 12), _first_day(year * 12 + 12)
        day, exists = numbers["j"], np.ones(len(year), bool)
    else:
        month = _month(parts["b"]) if "b" in parts else numbers["m"]
        exists = (month >= 1) & (month <= 12)
        count = year * 12 + np.where(exists, month, 1) - 1
        start, next_start = _first_day(count), _first_day(count + 1)
        day = numbers["d"]
    return start + day - 1, exists & (day >= 1) & (day <= next_start - start)


def _first_day(months: Ints) -> Ints:
    """Days since 1970 of the first day of each month; months are counted from January of year 0."""
    return (months - 1970 * 12).astype("datetime64[M]").astype("datetime64[D]").astype(np.int64)


def _month(names: pa.Array) -> Ints:
    index = pc.index_in(pc.utf8_lower(names), _MONTHS)
    return to_numpy(index.fill_null(-1)).astype(np.int64) + 1


def _time_of_day(
    numbers: Mapping[str, Ints], parts: Mapping[str, pa.Array], rows: int
) -> tuple[Ints, Mask]:
    """Microseconds since midnight, and whether the time exists."""
    zeros, exists = np.zeros(rows, np.int64), np.ones(rows, bool)
    for name, most in _MAXIMA.items():
        exists &= numbers.get(name, zeros) <= most
    hour = numbers.get("H", zeros)
    if "I" in numbers:
        exists &= (numbers["I"] >= 1) & (numbers["I"] <= 12)
        hour = numbers["I"] % 12
    if "p" in parts:
        hour = hour + 12 * to_numpy(pc.fill_null(pc.equal(pc.utf8_upper(parts["p"]), "P"), False))
    fraction = zeros
    if "f" in parts:
        digits = pc.utf8_slice_codeunits(pc.utf8_rpad(pc.fill_null(parts["f"], "0"), 6, "0"), 0, 6)
        fraction = to_numpy(digits.cast(pa.int64()))
    minute, second = numbers.get("M", zeros), numbers.get("S", zeros)
    return hour * _HOUR + minute * _MINUTE + second * _SECOND + fraction, exists


def _utc_offset(parts: Mapping[str, pa.Array], rows: int) -> tuple[Ints, Mask]:
    """Microseconds by which the text's zone is ahead of UTC, and whether the zone is known.

    It is 0 where the pattern has neither `%z` nor `%Z`.
    """
    if "z" in parts:
        text = pc.replace_substring(pc.fill_null(parts["z"], "+0000"), ":", "")
        text = pc.utf8_rpad(pc.if_else(pc.equal(text, "Z"), "+0000", text), 5, "0")
        hours = _number(pc.utf8_slice_codeunits(text, 1, 3))
        minutes = _number(pc.utf8_slice_codeunits(text, 3, 5))
        ahead = to_numpy(pc.starts_with(text, "+")).astype(bool)
        return (hours * _HOUR + minutes * _MINUTE) * np.where(ahead, 1, -1), np.ones(rows, bool)
    if "Z" in parts:
        index = pc.index_in(pc.utf8_upper(parts["Z"]), pa.array(list(_ZONES)))
        number = to_numpy(index.fill_null(len(_ZONES)))
        return np.array([*_ZONES.values(), 0])[number] * _HOUR, number < len(_ZONES)
    return np.zeros(rows, np.int64), np.ones(rows, bool)
