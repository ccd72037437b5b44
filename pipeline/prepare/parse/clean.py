"""From the columns of a log to typed events; each bad record is rejected with a reason.

Ids are kept exactly as they are in the file: no trimming, no case folding, no Unicode
normalisation. An empty id is a missing one. Whether a value is accepted never depends on other
records.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from embedmill.pipeline.config import EventsConfig, SignalsConfig
from embedmill.pipeline.prepare.parse.ids import id_text
from embedmill.pipeline.prepare.parse.numbers import as_numbers
from embedmill.pipeline.prepare.parse.rejects import Rejects, first_per_reason
from embedmill.pipeline.prepare.parse.times import (
    TimeFormat,
    iso_microseconds,
    parse_times,
    time_format_of,
)
from embedmill.pipeline.prepare.parse.values import Mask, to_numpy
from embedmill.pipeline.prepare.readers.parsed_batch import ParsedBatch
from embedmill.schemas.events import CODES, EVENTS

__all__ = ["CleaningRules", "clean", "cleaning_rules", "type_weights"]

_FLOAT32 = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class CleaningRules:
    """The config of events, with parsed bounds of time.

    Attributes:
        config: the config.
        time_min: earliest time that is accepted, in microseconds since 1970.
        time_max: latest time that is accepted; a day from now where the config has none.
        time_format: how times are written.
    """

    config: EventsConfig
    time_min: int
    time_max: int
    time_format: TimeFormat


def cleaning_rules(config: EventsConfig) -> CleaningRules:
    """The rules of a config.

    Raises:
        ConfigError: a bound of time cannot be read, or a zone or pattern is unknown.
    """
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    latest = int(tomorrow.timestamp() * 1e6)
    return CleaningRules(
        config,
        iso_microseconds(config.time_min, "events.time_min"),
        iso_microseconds(config.time_max, "events.time_max") if config.time_max else latest,
        time_format_of(config.time_unit, config.time_patterns, config.time_zone),
    )


def clean(batch: ParsedBatch, rules: CleaningRules) -> tuple[pa.Table, Rejects]:
    """The events (schema EVENTS) of a batch, and its rejects, including those of the reader.

    Raises:
        InputError: a column has a type that cannot hold what the config says.
    """
    config, rejections = rules.config, _Rejections(batch.rows)
    user = _id(batch, config.user, "user_missing", rejections)
    item = _id(batch, config.item, "item_missing", rejections)
    for ids in (user, item):
        rejections.reject("id_too_long", to_numpy(pc.binary_length(ids)) > config.max_id_bytes)
    time = _time(batch, rules, rejections)
    weight = _weight(batch, config, rejections)
    split = _split(batch, config, rejections)
    table = pa.Table.from_arrays([user, item, time, weight, split], schema=EVENTS)
    if (rejections.codes >= 0).any():
        table = table.filter(pa.array(rejections.codes < 0))
    return table, _all_rejects(batch, rejections, config.keep_rejects)


class _Rejections:
    """The first reason for which each record is rejected; -1 where there is none."""

    def __init__(self, rows: int) -> None:
        self.codes = np.full(rows, -1, np.int8)

    def reject(self, reason: str, bad: Mask) -> None:
        """Reject the records where `bad` is true, except those already rejected."""
        if bad.any():
            self.codes[bad & (self.codes < 0)] = CODES[reason]


def _all_rejects(batch: ParsedBatch, rejections: _Rejections, most: int) -> Rejects:
    """The reader's rejects and the rejected records.

    Bytes are only fetched of records that may be kept, the first `most` of each reason.
    """
    rows = np.flatnonzero(rejections.codes >= 0)
    if not len(rows):
        return batch.rejects
    lines, codes = batch.lines[rows], rejections.codes[rows]
    kept = first_per_reason(lines, codes, most)
    kept_at = np.full(len(rows), -1)
    kept_at[kept] = np.arange(len(kept))
    raw = batch.raw(rows[kept]).take(pa.array(kept_at, mask=kept_at < 0))
    return Rejects.concat([batch.rejects, Rejects(lines, codes, raw)])


def _id(batch: ParsedBatch, name: str, reason: str, rejections: _Rejections) -> pa.Array:
    """Ids without nulls; missing ones are rejected and set to ''."""
    found = id_text(batch.columns[name], name)
    rejections.reject("id_not_whole", found.not_whole)
    ids = found.text.fill_null("") if found.text.null_count else found.text
    rejections.reject(reason, to_numpy(pc.binary_length(ids)) == 0)
    return ids


def _time(batch: ParsedBatch, rules: CleaningRules, rejections: _Rejections) -> pa.Array:
    name = rules.config.time
    if not name:
        return pa.nulls(batch.rows, pa.int64())
    times = parse_times(batch.columns[name], name, rules.time_format)
    time = times.values
    rejections.reject("time", ~times.known)
    rejections.reject(
        "time_range", ~times.in_range | (time < rules.time_min) | (time > rules.time_max)
    )
    return pa.array(time)


def _weight(batch: ParsedBatch, config: EventsConfig, rejections: _Rejections) -> pa.Array:
    """The weight column, or 1, times the weight of the event's type where types have one."""
    weight = np.ones(batch.rows)
    if config.weight:
        weight, known = as_numbers(batch.columns[config.weight], config.weight, booleans=True)
        rejections.reject("weight", ~known)
    if config.signals.types:
        of_type = type_weights(batch, config.signals)
        rejections.reject("type", np.isnan(of_type))
        with np.errstate(over="ignore", invalid="ignore"):
            weight = weight * np.nan_to_num(of_type)
    if not (config.weight or config.signals.types):
        return pa.array(weight)
    with np.errstate(invalid="ignore"):
        rejections.reject("weight_range", ~(np.abs(weight) <= _FLOAT32))
    return pa.array(weight + 0.0)  # -0.0 becomes 0.0


def type_weights(batch: ParsedBatch, signals: SignalsConfig) -> npt.NDArray[np.float64]:
    """The weight of each record's type, [N]; NaN where `types` does not have it."""
    names = id_text(batch.columns[signals.type], signals.type).text
    known = pa.array(list(signals.types), pa.string())
    index = to_numpy(pc.index_in(names, known).fill_null(len(known)))
    return np.array([*signals.types.values(), np.nan])[index]  # type: ignore[no-any-return]


def _split(batch: ParsedBatch, config: EventsConfig, rejections: _Rejections) -> pa.Array:
    if not config.split:
        return pa.nulls(batch.rows, pa.string())
    split = id_text(batch.columns[config.split], config.split).text
    rejections.reject("split", to_numpy(pc.equal(pc.fill_null(split, ""), "")).astype(bool))
    return split
