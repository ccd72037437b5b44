"""From columns of a log to typed events, each bad record with its reason.

Ids are kept exactly as they stand: no trimming, no case folding, no Unicode normalisation.
An empty id is a missing one. Whether a value is accepted never depends on its neighbours.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.config import EventsConfig, SignalsConfig
from pipeline.errors import ConfigError, InputError
from pipeline.prepare.block import Block, Rejects
from schemas.tables import EVENTS

__all__ = ["REASONS", "Rules", "clean", "iso_microseconds", "rules", "type_weights"]

# Every reason a record can be rejected for; the first four are found by the source formats.
REASONS: dict[str, str] = {
    "columns": "another number of columns than the header",
    "encoding": "bytes that the encoding does not have",
    "quote": "a quote that is not closed, or text after a closing quote",
    "json": "no JSON object",
    "user_missing": "no user",
    "item_missing": "no item",
    "id_too_long": "a user or item longer than events.max_id_bytes",
    "time": "a time that cannot be read",
    "time_range": "a time before events.time_min or after events.time_max",
    "weight": "a weight that is no number",
    "weight_range": "a weight that is NaN, infinite or beyond 32-bit floats",
    "type": "a type that events.signals.types does not name",
    "split": "no split",
}
_UNITS = {"seconds": 1_000_000, "milliseconds": 1_000, "microseconds": 1}
_FLOAT32 = float(np.finfo(np.float32).max)
_INT64 = 2**63 - 1
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Rules:
    """The config of events with its bounds of time in microseconds."""

    config: EventsConfig
    time_min: int
    time_max: int


def rules(config: EventsConfig) -> Rules:
    """The rules of a config.

    Raises:
        ConfigError: a bound of time cannot be read.
    """
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    latest = int(tomorrow.timestamp() * 1e6)
    return Rules(
        config,
        iso_microseconds(config.time_min, "events.time_min"),
        iso_microseconds(config.time_max, "events.time_max") if config.time_max else latest,
    )


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
    return (when - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def clean(block: Block, rule: Rules) -> tuple[pa.Table, Rejects]:
    """Events (schema EVENTS) and rejects of a block, those that it came with included.

    Raises:
        InputError: a column has a type that cannot hold what the config says.
    """
    config, verdict = rule.config, _Verdict(block.rows)
    user = _id(block, config.user, "user_missing", verdict)
    item = _id(block, config.item, "item_missing", verdict)
    for ids in (user, item):
        verdict.reject("id_too_long", _array(pc.binary_length(ids)) > config.max_id_bytes)
    time = _time(block, rule, verdict)
    weight = _weight(block, config, verdict)
    split = _split(block, config, verdict)
    table = pa.Table.from_arrays([user, item, time, weight, split], schema=EVENTS)
    if verdict.codes.any():
        table = table.filter(pa.array(verdict.codes == 0))
    return table, _with(block, verdict)


class _Verdict:
    """The first reason against each record."""

    _NAMES = tuple(REASONS)

    def __init__(self, rows: int) -> None:
        self.codes = np.zeros(rows, np.int8)

    def reject(self, reason: str, bad: Mask) -> None:
        """Reject records that nothing was said against before."""
        if bad.any():
            self.codes[bad & (self.codes == 0)] = self._NAMES.index(reason) + 1

    def reasons(self, rows: npt.NDArray[np.int64]) -> list[str]:
        """The reasons against rejected records."""
        return [self._NAMES[code - 1] for code in self.codes[rows].tolist()]


def _with(block: Block, verdict: _Verdict) -> Rejects:
    rows = np.flatnonzero(verdict.codes)
    if not len(rows):
        return block.rejects
    return Rejects(
        block.rejects.lines + block.lines[rows].tolist(),
        block.rejects.reasons + verdict.reasons(rows),
        block.rejects.raw + block.raw(rows).to_pylist(),
    )


def _id(block: Block, name: str, reason: str, verdict: _Verdict) -> pa.Array:
    """Ids without nulls; missing ones are rejected and hold ''."""
    ids = as_text(block.columns[name], name)
    ids = ids.fill_null("") if ids.null_count else ids
    verdict.reject(reason, _array(pc.binary_length(ids)) == 0)
    return ids


def _time(block: Block, rule: Rules, verdict: _Verdict) -> pa.Array:
    name = rule.config.time
    if not name:
        return pa.nulls(block.rows, pa.int64())
    time, known, within = _microseconds(block.columns[name], name, rule.config.time_unit)
    verdict.reject("time", ~known)
    verdict.reject("time_range", ~within | (time < rule.time_min) | (time > rule.time_max))
    return pa.array(time)


def _weight(block: Block, config: EventsConfig, verdict: _Verdict) -> pa.Array:
    """What the log says of each event, times the weight of its type where types have one."""
    weight = np.ones(block.rows)
    if config.weight:
        weight, known = _numbers(block.columns[config.weight], config.weight)
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
    names = as_text(block.columns[rules.type], rules.type)
    known = pa.array(list(rules.types), pa.string())
    place = _array(pc.index_in(names, known).fill_null(len(known)))
    return np.array([*rules.types.values(), np.nan])[place]  # type: ignore[no-any-return]


def _split(block: Block, config: EventsConfig, verdict: _Verdict) -> pa.Array:
    if not config.split:
        return pa.nulls(block.rows, pa.string())
    split = as_text(block.columns[config.split], config.split)
    verdict.reject("split", _array(pc.equal(pc.fill_null(split, ""), "")).astype(bool))
    return split


def as_text(column: pa.Array, name: str) -> pa.Array:
    """A column as strings; whole numbers in decimal, null where there is none.

    Raises:
        InputError: the type cannot be an id.
    """
    kind = column.type
    if pa.types.is_dictionary(kind):
        column, kind = column.dictionary_decode(), kind.value_type
    if pa.types.is_string(kind):
        return _valid(column)
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return _valid(column.cast(pa.string()))
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return try_cast(column.cast(pa.binary()), pa.string())
    if pa.types.is_integer(kind):
        return column.cast(pa.string())
    if pa.types.is_floating(kind):  # whole numbers beside nulls, as pandas writes them
        values = _array(column.cast(pa.float64()))
        whole = np.isfinite(values) & (np.abs(values) < 2**53) & (np.floor(values) == values)
        numbers = pa.array(np.where(whole, values, 0).astype(np.int64), mask=~whole)
        return numbers.cast(pa.string())
    raise InputError(f"column '{name}' is {kind}; ids are strings or whole numbers")


def _valid(column: pa.Array) -> pa.Array:
    """Strings, with null for those that are not UTF-8: Parquet does not promise it."""
    try:
        column.validate(full=True)
    except pa.ArrowInvalid:
        return try_cast(column.cast(pa.binary()), pa.string())
    return column


def _numbers(column: pa.Array, name: str) -> tuple[npt.NDArray[np.float64], Mask]:
    """Values as floats, and where there is one."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        column, kind = column.dictionary_decode(), kind.value_type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        numbers = try_cast(column, pa.float64())
    elif pa.types.is_boolean(kind):
        numbers = column.cast(pa.int8()).cast(pa.float64())
    elif pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        numbers = column.cast(pa.float64(), safe=False)
    else:
        raise InputError(f"column '{name}' is {kind}; a number is needed")
    known = _array(numbers.is_valid()).astype(bool)
    return _array(numbers.fill_null(0.0)), known


def _microseconds(
    column: pa.Array, name: str, unit: str
) -> tuple[npt.NDArray[np.int64], Mask, Mask]:
    """Microseconds since 1970, where there is a time, and where it fits 64 bits."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        column, kind = column.dictionary_decode(), kind.value_type
    text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        found = column.cast(pa.timestamp("us", getattr(kind, "tz", None)), safe=False)
        return _split_nulls(found.cast(pa.int64()))
    if unit == "iso":
        if not text:
            raise InputError(f"column '{name}' is {kind}; events.time_unit = 'iso' needs text")
        return _split_nulls(_from_iso(column))
    if pa.types.is_integer(kind):
        time, known, _ = _split_nulls(column.cast(pa.int64(), safe=False))
        within = np.abs(time.astype(np.float64)) <= _INT64 / _UNITS[unit] * 0.999
        return np.where(within, time, 0) * _UNITS[unit], known, within
    numbers, known = _numbers(column, name)
    known &= ~np.isnan(numbers)
    scaled = np.rint(np.nan_to_num(numbers, posinf=np.inf, neginf=-np.inf) * _UNITS[unit])
    within = np.abs(scaled) <= _INT64 * 0.999
    return np.where(within, scaled, 0).astype(np.int64), known, within


def _split_nulls(values: pa.Array) -> tuple[npt.NDArray[np.int64], Mask, Mask]:
    known = _array(values.is_valid()).astype(bool)
    return _array(values.fill_null(0)), known, np.ones(len(values), bool)


def _from_iso(column: pa.Array) -> pa.Array:
    """ISO times as microseconds, null where it is none; UTC where no zone is named."""
    column = pc.replace_substring_regex(
        column.cast(pa.string()), r"^(.*:\d\d\.\d{6})\d+", r"\1"
    )  # finer than a microsecond
    zoned = pc.match_substring_regex(column, r":\d\d.*(Z|[+-]\d\d(:?\d\d)?)$")
    nothing = pa.scalar(None, pa.string())
    with_zone = try_cast(pc.if_else(zoned, column, nothing), pa.timestamp("us", "UTC"))
    without = try_cast(pc.if_else(zoned, nothing, column), pa.timestamp("us"))
    return pc.coalesce(with_zone.cast(pa.int64()), without.cast(pa.int64()))


def try_cast(column: pa.Array, kind: pa.DataType) -> pa.Array:
    """A cast that gives null where a value cannot be cast; halves the array to find those."""
    try:
        return column.cast(kind)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        if len(column) <= 1:
            return pa.nulls(len(column), kind)
    middle = len(column) // 2
    halves = [try_cast(column.slice(0, middle), kind), try_cast(column.slice(middle), kind)]
    return pa.concat_arrays(halves)


def _array(column: pa.Array) -> npt.NDArray[Any]:
    return column.to_numpy(zero_copy_only=False)  # type: ignore[no-any-return]
