"""How the times of a column are written, by reading some of them in every way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa

from embedmill.pipeline.errors import EmbedmillError
from embedmill.pipeline.prepare.parse.times import parse_times, time_format_of

__all__ = ["TimeStyle", "time_style"]

_UNITS = ("iso", "seconds", "milliseconds", "microseconds", "nanoseconds")
# Where a day and a month can be exchanged, the first of two patterns is taken, and said.
_PATTERNS = (
    "%Y%m%d",
    "%Y%m%d%H%M%S",
    "%Y/%m/%d",
    "%Y/%m/%d %H:%M",
    "%Y/%m/%d %H:%M:%S",
    "%d.%m.%Y",
    "%d.%m.%Y %H:%M",
    "%d.%m.%Y %H:%M:%S",
    "%m/%d/%Y",
    "%d/%m/%Y",
    "%m/%d/%Y %H:%M",
    "%d/%m/%Y %H:%M",
    "%m/%d/%Y %H:%M:%S",
    "%d/%m/%Y %H:%M:%S",
    "%m/%d/%Y %I:%M:%S %p",
    "%d-%m-%Y",
    "%d-%m-%Y %H:%M:%S",
    "%d/%b/%Y:%H:%M:%S %z",
    "%d %b %Y",
    "%d %b %Y %H:%M:%S",
    "%b %d, %Y",
    "%a %b %d %H:%M:%S %z %Y",
    "%a, %d %b %Y %H:%M:%S %z",
)
_BETTER = 0.01  # share of values more, for which another way is taken
_EARLIEST = datetime(1990, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class TimeStyle:
    """How times are written.

    Attributes:
        unit: a value of `events.time_unit`.
        patterns: for the units "pattern" and "auto".
        share: share of the values that are read so as times from 1990 to next year.
        unsure: another way that fits as well; empty where there is none.
    """

    unit: str
    patterns: tuple[str, ...] = ()
    share: float = 0.0
    unsure: str = ""


def time_style(values: Sequence[Any]) -> TimeStyle:
    """The way in which most values are times.

    Args:
        values: of a column, without missing ones.
    """
    if values and all(isinstance(value, date | datetime) for value in values):
        return TimeStyle("iso", share=1.0)
    try:
        column = pa.array(values if not _mixed(values) else [str(value) for value in values])
    except (pa.ArrowException, OverflowError, TypeError):
        return TimeStyle("iso")
    found = [_tried(column, unit) for unit in _UNITS]
    found += [_tried(column, "pattern", (pattern,)) for pattern in _PATTERNS]
    best = max(found, key=lambda one: one.share)
    if best.share < 1:
        mixed = _mixed_style(column, found)
        return mixed if mixed.share > best.share + _BETTER else best
    others = [one for one in found if one.share == best.share and one != best]
    swapped = [one.patterns[0] for one in others if one.patterns and best.patterns]
    return replace(best, unsure=f"it may also be {swapped[0]}") if swapped else best


def _mixed_style(column: pa.Array, found: Sequence[TimeStyle]) -> TimeStyle:
    """Unit "auto" with as few patterns as read what the ones before them do not."""
    best = _tried(column, "auto")
    for one in sorted(found, key=lambda one: -one.share):
        if one.patterns and one.share:
            more = _tried(column, "auto", (*best.patterns, *one.patterns))
            best = more if more.share > best.share + _BETTER else best
    return best


def _mixed(values: Sequence[Any]) -> bool:
    return len({type(value) for value in values}) > 1


def _tried(column: pa.Array, unit: str, patterns: tuple[str, ...] = ()) -> TimeStyle:
    """How many values are plausible times if read so."""
    try:
        times = parse_times(column, "time", time_format_of(unit, patterns, "UTC"))
    except EmbedmillError:
        return TimeStyle(unit, patterns)
    earliest = _EARLIEST.timestamp() * 1e6
    latest = (datetime.now(UTC) + timedelta(days=366)).timestamp() * 1e6
    plausible = times.known & times.in_range & (times.values >= earliest) & (times.values <= latest)
    known = times.known & times.in_range
    # Few times before 1990 are in logs, but a time that is read is one still.
    share = float(np.mean(plausible)) + 1e-3 * float(np.mean(known)) if len(column) else 0.0
    return TimeStyle(unit, patterns, min(1.0, share))
