"""What a row of a log is worth: the rules of `events.filter` and `events.signals` in a task.

These look at one row at a time; what looks at a user's rows together is in `crowds`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Set
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from embedmill.pipeline.config import EventsConfig
from embedmill.pipeline.config.conditions import parse
from embedmill.pipeline.prepare.parse.clean import type_weights
from embedmill.pipeline.prepare.readers.parsed_batch import ParsedBatch
from embedmill.pipeline.prepare.rules.filters import Filter
from embedmill.schemas.events import RULES

__all__ = ["Selection", "asked", "columns"]

Mask = npt.NDArray[np.bool_]


def columns(config: EventsConfig) -> tuple[str, ...]:
    """The raw columns that the rules look at."""
    filtered = parse(config.filter).columns if config.filter else ()
    return (*filtered, *([config.signals.type] if config.signals.type else []))


def asked(config: EventsConfig) -> list[str]:
    """The names in `events.RULES` of the rules that a config has."""
    rules = config.signals
    there = {
        "filtered": bool(config.filter),
        "other_type": bool(rules.types),
        "underweight": rules.min_weight is not None,
        "repeated": config.drop_repeats,
        "bots": bool(rules.max_user_day),
        "underweight_merged": rules.min_merged_weight is not None,
        "capped": bool(rules.max_user_events),
    }
    return [name for name in RULES if there[name]]


class Selection:
    """The rules on single rows, in one task; `counts` says how many each of them dropped."""

    def __init__(self, config: EventsConfig) -> None:
        self.counts: Counter[str] = Counter()
        self._rules = config.signals
        condition = parse(config.filter) if config.filter else None
        self._filter = Filter(condition) if condition else None
        asked_later = {config.user, config.item, config.time, config.weight, config.split}
        looked_at = set(condition.columns) if condition else set()
        self._idle = looked_at - asked_later - {config.signals.type}

    def of(self, batch: ParsedBatch) -> ParsedBatch:
        """The records that the filter takes, of types that are not to be dropped.

        Raises:
            InputError: the filter cannot be asked of columns of these types.
        """
        if self._filter is None and not self._drops_types:
            return batch
        keep = np.ones(batch.rows, bool)
        if self._filter is not None:
            keep = self._filter.takes(batch)
            self.counts["filtered"] += batch.rows - int(keep.sum())
        if self._drops_types:
            weight = type_weights(batch, self._rules)
            known = ~np.isnan(weight) | (self._rules.other_types == "reject")
            taken, keep = int(keep.sum()), keep & known & (weight != 0)
            self.counts["other_type"] += taken - int(keep.sum())
        return batch if keep.all() else _kept(batch, keep, self._idle)

    @property
    def _drops_types(self) -> bool:
        types = self._rules.types
        return bool(types) and (self._rules.other_types == "drop" or 0 in types.values())

    def weighty(self, events: pa.Table) -> pa.Table:
        """The events (schema EVENTS) that weigh enough, at their weight or at 1."""
        least = self._rules.min_weight
        if least is not None:
            enough = pc.greater_equal(events["weight"], least)
            light = events.num_rows - (pc.sum(enough).as_py() or 0)
            self.counts["underweight"] += light
            events = events.filter(enough) if light else events
        if self._rules.binary:
            field, ones = events.schema.field("weight"), pa.array(np.ones(events.num_rows))
            events = events.set_column(events.schema.get_field_index("weight"), field, ones)
        return events


def _kept(batch: ParsedBatch, keep: Mask, idle: Set[str]) -> ParsedBatch:
    """Some of the records, without the columns that nobody asks for any more."""
    rows, mask, raw = np.flatnonzero(keep), pa.array(keep), batch.raw
    columns = {n: column.filter(mask) for n, column in batch.columns.items() if n not in idle}
    return replace(
        batch, columns=columns, lines=batch.lines[rows], raw=lambda chosen: raw(rows[chosen])
    )
