"""From columns of a log to typed events, each bad record with its reason.

Ids are kept exactly as they stand: no trimming, no case folding, no Unicode normalisation.
An empty id is a missing one. Whether a value is accepted never depends on its neighbours.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from embedmill.pipeline.config import EventsConfig, SignalsConfig
from embedmill.pipeline.prepare.parse.times import Clock, clock, iso_microseconds, microseconds
from embedmill.pipeline.prepare.parse.values import Mask, as_array, as_numbers, as_text
from embedmill.pipeline.prepare.readers.parsed_batch import Block, Rejects, first_of_each
from embedmill.schemas.events import CODES, EVENTS

__all__ = ["Rules", "clean", "rules", "type_weights"]

_FLOAT32 = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class Rules:
    """The config of events with its bounds of time in microseconds."""

    config: EventsConfig
    time_min: int
    time_max: int
    clock: Clock


def rules(config: EventsConfig) -> Rules:
    """The rules of a config.

    Raises:
        ConfigError: a bound of time cannot be read, or a zone or pattern is unknown.
    """
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    latest = int(tomorrow.timestamp() * 1e6)
    return Rules(
        config,
        iso_microseconds(config.time_min, "events.time_min"),
        iso_microseconds(config.time_max, "events.time_max") if config.time_max else latest,
        clock(config.time_unit, config.time_patterns, config.time_zone),
    )


def clean(block: Block, rule: Rules) -> tuple[pa.Table, Rejects]:
    """Events (schema EVENTS) and rejects of a block, those that it came with included.

    Raises:
        InputError: a column has a type that cannot hold what the config says.
    """
    config, verdict = rule.config, _Verdict(block.rows)
    user = _id(block, config.user, "user_missing", verdict)
    item = _id(block, config.item, "item_missing", verdict)
    for ids in (user, item):
        verdict.reject("id_too_long", as_array(pc.binary_length(ids)) > config.max_id_bytes)
    time = _time(block, rule, verdict)
    weight = _weight(block, config, verdict)
    split = _split(block, config, verdict)
    table = pa.Table.from_arrays([user, item, time, weight, split], schema=EVENTS)
    if (verdict.codes >= 0).any():
        table = table.filter(pa.array(verdict.codes < 0))
    return table, _with(block, verdict, config.keep_rejects)


class _Verdict:
    """The first reason against each record."""

    def __init__(self, rows: int) -> None:
        self.codes = np.full(rows, -1, np.int8)

    def reject(self, reason: str, bad: Mask) -> None:
        """Reject records that nothing was said against before."""
        if bad.any():
            self.codes[bad & (self.codes < 0)] = CODES[reason]


def _with(block: Block, verdict: _Verdict, most: int) -> Rejects:
    """The rejects of the block and those of the verdict, with the bytes of what may be kept."""
    rows = np.flatnonzero(verdict.codes >= 0)
    if not len(rows):
        return block.rejects
    lines, codes = block.lines[rows], verdict.codes[rows]
    kept = first_of_each(lines, codes, most)
    place = np.full(len(rows), -1)
    place[kept] = np.arange(len(kept))
    raw = block.raw(rows[kept]).take(pa.array(place, mask=place < 0))
    return Rejects.joined([block.rejects, Rejects(lines, codes, raw)])


def _id(block: Block, name: str, reason: str, verdict: _Verdict) -> pa.Array:
    """Ids without nulls; missing ones are rejected and hold ''."""
    ids = as_text(block.columns[name], name)
    ids = ids.fill_null("") if ids.null_count else ids
    verdict.reject(reason, as_array(pc.binary_length(ids)) == 0)
    return ids


def _time(block: Block, rule: Rules, verdict: _Verdict) -> pa.Array:
    name = rule.config.time
    if not name:
        return pa.nulls(block.rows, pa.int64())
    found = microseconds(block.columns[name], name, rule.clock)
    time = found.values
    verdict.reject("time", ~found.known)
    verdict.reject("time_range", ~found.within | (time < rule.time_min) | (time > rule.time_max))
    return pa.array(time)


def _weight(block: Block, config: EventsConfig, verdict: _Verdict) -> pa.Array:
    """What the log says of each event, times the weight of its type where types have one."""
    weight = np.ones(block.rows)
    if config.weight:
        weight, known = as_numbers(block.columns[config.weight], config.weight)
        verdict.reject("weight", ~known)
    if config.signals.types:
        of_type = type_weights(block, config.signals)
        verdict.reject("type", np.isnan(of_type))
        with np.errstate(over="ignore", invalid="ignore"):
            weight = weight * np.nan_to_num(of_type)
    if not (config.weight or config.signals.types):
        return pa.array(weight)
    with np.errstate(invalid="ignore"):
        verdict.reject("weight_range", ~(np.abs(weight) <= _FLOAT32))
    return pa.array(weight + 0.0)  # -0.0 becomes 0.0


def type_weights(block: Block, rules: SignalsConfig) -> npt.NDArray[np.float64]:
    """The weight of each record's type; NaN where `types` does not name it."""
    column = block.columns[rules.type]
    flags = pa.types.is_boolean(column.type)  # true and false, as in JSON
    names = column.cast(pa.string()) if flags else as_text(column, rules.type)
    known = pa.array(list(rules.types), pa.string())
    place = as_array(pc.index_in(names, known).fill_null(len(known)))
    return np.array([*rules.types.values(), np.nan])[place]  # type: ignore[no-any-return]


def _split(block: Block, config: EventsConfig, verdict: _Verdict) -> pa.Array:
    if not config.split:
        return pa.nulls(block.rows, pa.string())
    split = as_text(block.columns[config.split], config.split)
    verdict.reject("split", as_array(pc.equal(pc.fill_null(split, ""), "")).astype(bool))
    return split
