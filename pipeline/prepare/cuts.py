"""What a split needs to know of the whole log: times of global cuts, values of a column."""

from __future__ import annotations

from pyspark.sql import DataFrame

from pipeline.config import ShardsConfig
from pipeline.errors import ConfigError, InputError
from pipeline.prepare.engine import collect
from pipeline.prepare.split import Cuts
from pipeline.prepare.times import iso_microseconds

__all__ = ["cuts_of", "first_time_of_share"]

_BINS = 1 << 16
_VALUES = 100  # distinct values of a split column that are looked at


def cuts_of(config: ShardsConfig, events: DataFrame) -> Cuts:
    """The cuts of a config over events (columns time, split).

    Raises:
        ConfigError: the cuts are in the wrong order.
        InputError: the split column holds a value that the config does not name.
    """
    if config.split == "time":
        test_from = _from(config.test_from, "test_from", config.test, events)
        valid_from = _from(config.valid_from, "valid_from", config.valid + config.test, events)
        if valid_from > test_from:
            raise ConfigError("valid_from is later than test_from", where="shards")
        return Cuts(config.split, config.valid, config.test, valid_from, test_from)
    if config.split == "given":
        return Cuts(config.split, _valid_share(config, events), 0)
    return Cuts(config.split, config.valid, config.test)


def first_time_of_share(events: DataFrame, share: float) -> int:
    """The earliest time such that at most this share of the events is at or after it.

    Exact, and never more than 65,536 numbers on the driver: a histogram is refined in the bin
    where the time lies. Events of one time are never separated.
    """
    ends = collect(
        events.selectExpr("min(time) as low", "max(time) as high", "count(time) as n")
    ).to_pylist()[0]
    low, high, most = ends["low"], ends["high"], int(share * ends["n"])
    above = 0  # events later than `high`
    while True:
        width = -(-(high - low + 1) // _BINS)
        bins = collect(
            events.where(f"time between {low} and {high}")
            .selectExpr(f"cast((time - {low}) div {width} as long) as bin")
            .groupBy("bin")
            .count()
        )
        counts = sorted(zip(bins["bin"].to_pylist(), bins["count"].to_pylist(), strict=True))
        if above + sum(count for _, count in counts) <= most:
            return int(low)
        place, count = counts.pop()
        while above + count <= most:
            above += count
            place, count = counts.pop()
        # The share ends inside bin `place`.
        if width == 1:
            return int(low + place + 1)
        low, high = low + place * width, min(high, low + (place + 1) * width - 1)


def _from(text: str, key: str, share: float, events: DataFrame) -> int:
    return iso_microseconds(text, f"shards.{key}") if text else first_time_of_share(events, share)


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
