"""What a split needs to know of the whole log: times of global cuts, values of a column."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pyspark.sql import DataFrame

from embedmill.pipeline.config import ShardsConfig
from embedmill.pipeline.errors import ConfigError, InputError
from embedmill.pipeline.prepare.engine.frames import collect
from embedmill.pipeline.prepare.histograms import DAY
from embedmill.pipeline.prepare.parse.times import iso_microseconds
from embedmill.pipeline.prepare.splits.assignment import Cuts

__all__ = ["Span", "cuts_of", "first_times"]

_BINS = 1 << 16
_VALUES = 100  # distinct values of a split column that are looked at


@dataclass(frozen=True)
class Span:
    """No event is earlier than `first` or later than `last`, microseconds; there are `events`."""

    first: int
    last: int
    events: int

    @staticmethod
    def of(days: Sequence[tuple[str, int]], events: int) -> Span:
        """Of the days of days.json, the first of them to the last."""
        first, last = (iso_microseconds(days[at][0], "days.json") for at in (0, -1))
        return Span(first, last + DAY - 1, events)


def cuts_of(config: ShardsConfig, events: DataFrame, span: Span | None) -> Cuts:
    """The cuts of a config over events (columns time, split).

    Raises:
        ConfigError: the cuts are in the wrong order.
        InputError: the split column holds a value that the config does not name.
    """
    if config.split == "time":
        assert span is not None, "the config wants events.time"
        valid_from, test_from = _times(config, events, span)
        if valid_from > test_from:
            raise ConfigError("valid_from is later than test_from", where="shards")
        return Cuts(config.split, config.valid, config.test, valid_from, test_from)
    if config.split == "given":
        return Cuts(config.split, _valid_share(config, events), 0)
    return Cuts(config.split, config.valid, config.test)


def first_times(events: DataFrame, shares: Sequence[float], span: Span) -> list[int]:
    """For each share the earliest time such that at most this share is at or after it.

    Exact, with 65,536 numbers for each share on the driver: a histogram over the span is
    refined in the bins where the times lie, those of all shares at once, since `events` may be
    costly. Events of one time are never separated.
    """
    searches = [_Search(span.first, span.last, int(share * span.events)) for share in shares]
    while any(search.time is None for search in searches):
        # Two windows are one, or have nothing in common.
        windows = sorted({search.window for search in searches if search.time is None})
        found = collect(events.selectExpr(_bin(windows)).where("bin >= 0").groupBy("bin").count())
        counts = dict(zip(found["bin"].to_pylist(), found["count"].to_pylist(), strict=True))
        for search in searches:
            if search.time is None:
                number = windows.index(search.window)
                own = {b - number * _BINS: n for b, n in counts.items() if b // _BINS == number}
                search.narrow(own)
    return [search.time for search in searches if search.time is not None]


@dataclass
class _Search:
    """A search for the earliest time that at most `most` events are not earlier than.

    It lies in `low` to `high`, or is the moment after; `above` events are later.
    """

    low: int
    high: int
    most: int
    above: int = 0
    time: int | None = None

    @property
    def width(self) -> int:
        """Microseconds of a bin."""
        return -(-(self.high - self.low + 1) // _BINS)

    @property
    def window(self) -> tuple[int, int, int]:
        """First and last time, and the width of a bin."""
        return self.low, self.high, self.width

    def narrow(self, counts: Mapping[int, int]) -> None:
        """Go on in the bin where the share ends, of those with events, or be done."""
        low, width = self.low, self.width
        for place in sorted(counts, reverse=True):
            if self.above + counts[place] <= self.most:
                self.above += counts[place]
                continue
            if width == 1:
                self.time = low + place + 1
            else:
                self.low = low + place * width
                self.high = min(self.high, self.low + width - 1)
            return
        self.time = low  # all of them are few enough


def _bin(windows: Sequence[tuple[int, int, int]]) -> str:
    """The bin of a time, those of each window following those of the window before."""
    cases = " ".join(
        f"when time between {low} and {high}"
        f" then cast((time - ({low})) div {width} + {number * _BINS} as long)"
        for number, (low, high, width) in enumerate(windows)
    )
    return f"case {cases} else cast(-1 as long) end as bin"


def _times(config: ShardsConfig, events: DataFrame, span: Span) -> list[int]:
    """Where valid and test begin: as the config says, or by their shares."""
    texts = {"valid_from": config.valid_from, "test_from": config.test_from}
    shares = {"valid_from": config.valid + config.test, "test_from": config.test}
    asked = [key for key, text in texts.items() if not text]
    found = dict(zip(asked, first_times(events, [shares[key] for key in asked], span), strict=True))
    return [
        found[key] if key in found else iso_microseconds(text, f"shards.{key}")
        for key, text in texts.items()
    ]


def _valid_share(config: ShardsConfig, events: DataFrame) -> float:
    """The share of train that validates: none where the log gives validation events."""
    found = collect(events.select("split").distinct().limit(_VALUES))["split"].to_pylist()
    known = {*config.given_train, *config.given_valid, *config.given_test}
    unknown = sorted(str(value) for value in found if value not in known)
    if unknown:
        raise InputError(
            f"the split column holds {', '.join(repr(u[:40]) for u in unknown[:5])}",
            where="events.split",
            todo="Name every value in shards.given_train, given_valid or given_test",
        )
    return 0.0 if set(found) & set(config.given_valid) else config.valid
