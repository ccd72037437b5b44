"""Split boundaries that depend on the whole log: times of a global split, values of a column."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pyspark.sql import DataFrame

from embedmill.pipeline.config import ShardsConfig
from embedmill.pipeline.errors import ConfigError, InputError
from embedmill.pipeline.prepare.engine.frames import collect
from embedmill.pipeline.prepare.histograms import MICROSECONDS_PER_DAY
from embedmill.pipeline.prepare.parse.times import iso_microseconds
from embedmill.pipeline.prepare.splits.assignment import SplitBoundaries
from embedmill.schemas.events import DAYS

__all__ = ["TimeRange", "boundary_times", "split_boundaries"]

_BINS = 1 << 16
_MAX_VALUES = 100  # distinct values of a split column that are read


@dataclass(frozen=True)
class TimeRange:
    """The range of the times of `events` events: `first` to `last`, microseconds, inclusive."""

    first: int
    last: int
    events: int

    @staticmethod
    def of_days(days: Sequence[tuple[str, int]], events: int) -> TimeRange:
        """From the beginning of the first day of the log to the end of the last one.

        Args:
            days: see `schemas.events.DAYS`.
            events: number of events.
        """
        first, last = (iso_microseconds(days[at][0], DAYS.path) for at in (0, -1))
        return TimeRange(first, last + MICROSECONDS_PER_DAY - 1, events)


def split_boundaries(
    config: ShardsConfig, events: DataFrame, time_range: TimeRange | None
) -> SplitBoundaries:
    """The boundaries of the configured split over some events.

    Args:
        config: `shards` of the config.
        events: columns time, split.
        time_range: of these events; None if the log has no times.

    Raises:
        ConfigError: `valid_from` is later than `test_from`.
        InputError: the split column has a value that the config does not name.
    """
    if config.split == "time":
        assert time_range is not None, "the config wants events.time"
        valid_from, test_from = _global_times(config, events, time_range)
        if valid_from > test_from:
            raise ConfigError("valid_from is later than test_from", where="shards")
        return SplitBoundaries(config.split, config.valid, config.test, valid_from, test_from)
    if config.split == "given":
        return SplitBoundaries(config.split, _valid_share(config, events), 0)
    return SplitBoundaries(config.split, config.valid, config.test)


def boundary_times(events: DataFrame, shares: Sequence[float], time_range: TimeRange) -> list[int]:
    """For each share, the earliest time such that at most this share of events is not before it.

    The times are exact; events of one time are never separated. A histogram over the whole range
    is refined in the bin that holds the boundary, until bins are a microsecond wide: the driver
    sees 65,536 numbers for each share. All shares are refined together, because every pass over
    `events` may be costly.

    Args:
        events: column time, in microseconds.
        shares: in [0, 1].
        time_range: of these events.
    """
    searches = [
        _BoundarySearch(time_range.first, time_range.last, int(share * time_range.events))
        for share in shares
    ]
    while any(search.result is None for search in searches):
        # Two windows are equal or do not overlap.
        windows = sorted({search.window for search in searches if search.result is None})
        table = collect(events.selectExpr(_bin(windows)).where("bin >= 0").groupBy("bin").count())
        counts = dict(zip(table["bin"].to_pylist(), table["count"].to_pylist(), strict=True))
        for search in searches:
            if search.result is None:
                number = windows.index(search.window)
                own = {b - number * _BINS: n for b, n in counts.items() if b // _BINS == number}
                search.narrow(own)
    return [search.result for search in searches if search.result is not None]


@dataclass
class _BoundarySearch:
    """A search for the earliest time with at most `max_events` events at or after it.

    The time lies in [low, high + 1]; `later` events are later than `high`.
    """

    low: int
    high: int
    max_events: int
    later: int = 0
    result: int | None = None

    @property
    def bin_width(self) -> int:
        """Microseconds."""
        return -(-(self.high - self.low + 1) // _BINS)

    @property
    def window(self) -> tuple[int, int, int]:
        """First time, last time, and width of a bin."""
        return self.low, self.high, self.bin_width

    def narrow(self, counts: Mapping[int, int]) -> None:
        """Continue in the bin that holds the boundary, or set the result.

        Args:
            counts: events of each bin of the window that has any.
        """
        low, width = self.low, self.bin_width
        for number in sorted(counts, reverse=True):
            if self.later + counts[number] <= self.max_events:
                self.later += counts[number]
                continue
            if width == 1:
                self.result = low + number + 1
            else:
                self.low = low + number * width
                self.high = min(self.high, self.low + width - 1)
            return
        self.result = low  # the whole window has few enough events


def _bin(windows: Sequence[tuple[int, int, int]]) -> str:
    """SQL: the bin of a time, numbered through all windows; -1 outside of them."""
    cases = " ".join(
        f"when time between {low} and {high}"
        f" then cast((time - ({low})) div {width} + {number * _BINS} as long)"
        for number, (low, high, width) in enumerate(windows)
    )
    return f"case {cases} else cast(-1 as long) end as bin"


def _global_times(config: ShardsConfig, events: DataFrame, time_range: TimeRange) -> list[int]:
    """The times at which validation and test begin: as configured, or by their shares."""
    texts = {"valid_from": config.valid_from, "test_from": config.test_from}
    shares = {"valid_from": config.valid + config.test, "test_from": config.test}
    by_share = [key for key, text in texts.items() if not text]
    times = boundary_times(events, [shares[key] for key in by_share], time_range)
    time_of_key = dict(zip(by_share, times, strict=True))
    return [
        time_of_key[key] if key in time_of_key else iso_microseconds(text, f"shards.{key}")
        for key, text in texts.items()
    ]


def _valid_share(config: ShardsConfig, events: DataFrame) -> float:
    """The share of train that becomes validation: 0 if the log gives validation events."""
    column = events.select("split").distinct().limit(_MAX_VALUES)
    values = collect(column)["split"].to_pylist()
    named = {*config.given_train, *config.given_valid, *config.given_test}
    unknown = sorted(str(value) for value in values if value not in named)
    if unknown:
        raise InputError(
            f"the split column holds {', '.join(repr(u[:40]) for u in unknown[:5])}",
            where="events.split",
            todo="Name every value in shards.given_train, given_valid or given_test",
        )
    return 0.0 if set(values) & set(config.given_valid) else config.valid
