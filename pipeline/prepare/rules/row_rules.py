"""`events.filter` and the rules of `events.signals` that look at one row at a time.

The rules that look at all events of a user are in `merge` and `user_limits`.
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

__all__ = ["RowRules", "active_rules", "drops_nonpositive", "rule_columns", "select_records"]

Mask = npt.NDArray[np.bool_]


def rule_columns(config: EventsConfig) -> tuple[str, ...]:
    """The raw columns that the rules read."""
    filtered = parse(config.filter).columns if config.filter else ()
    return (*filtered, *([config.signals.type] if config.signals.type else []))


def active_rules(config: EventsConfig) -> list[str]:
    """The rules that a config turns on, as they are named in `schemas.events.RULES`."""
    rules = config.signals
    active = {
        "filtered": bool(config.filter),
        "other_type": bool(rules.types),
        "underweight": rules.min_weight is not None,
        "repeated": config.drop_repeats,
        "bots": bool(rules.max_user_events_per_day),
        "nonpositive": drops_nonpositive(config),
        "underweight_merged": rules.min_merged_weight is not None,
        "capped": bool(rules.max_user_events),
    }
    return [name for name in RULES if active[name]]


def drops_nonpositive(config: EventsConfig) -> bool:
    """Whether there may be events of zero or negative weight, and they are to be dropped."""
    rules = config.signals
    possible = bool(config.weight) or any(weight < 0 for weight in rules.types.values())
    bounds = [rules.min_weight, None if weights_go(config) else rules.min_merged_weight]
    positive = any(bound is not None and bound > 0 for bound in bounds)
    return possible and not positive and rules.nonpositive == "drop"


def weights_go(config: EventsConfig) -> bool:
    """Whether rows lose their own weights: each becomes 1, or rows are counted."""
    return config.signals.binary or config.merge_weight == "count"


class RowRules:
    """The rules on single rows, as one task applies them.

    `counts` has the number of rows that each rule of `schemas.events.RULES` has dropped.
    """

    def __init__(self, config: EventsConfig) -> None:
        self.counts: Counter[str] = Counter()
        self._rules = config.signals
        # Elsewhere the weights of merged events decide: a return may cancel a purchase.
        self._drops_nonpositive = weights_go(config) and drops_nonpositive(config)
        condition = parse(config.filter) if config.filter else None
        self._filter = Filter(condition) if condition else None
        used_later = {config.user, config.item, config.time, config.weight, config.split}
        filtered = set(condition.columns) if condition else set()
        self._filter_only = filtered - used_later - {config.signals.type}

    def filter_batch(self, batch: ParsedBatch) -> ParsedBatch:
        """The records that meet `events.filter` and whose type is not one to drop.

        Raises:
            InputError: the filter cannot be evaluated on columns of these types.
        """
        if self._filter is None and not self._drops_types:
            return batch
        keep = np.ones(batch.rows, bool)
        if self._filter is not None:
            keep = self._filter.matches(batch)
            self.counts["filtered"] += batch.rows - int(keep.sum())
        if self._drops_types:
            weight = type_weights(batch, self._rules)
            known = ~np.isnan(weight) | (self._rules.other_types == "reject")
            before, keep = int(keep.sum()), keep & known & (weight != 0)
            self.counts["other_type"] += before - int(keep.sum())
        return batch if keep.all() else select_records(batch, keep, self._filter_only)

    @property
    def _drops_types(self) -> bool:
        types = self._rules.types
        return bool(types) and (self._rules.other_types == "drop" or 0 in types.values())

    def apply_weight_rules(self, events: pa.Table) -> pa.Table:
        """The events (schema EVENTS) that the rules on weights leave; of weight 1 if `binary`."""
        min_weight = self._rules.min_weight
        if min_weight is not None:
            enough = pc.greater_equal(events["weight"], min_weight)
            dropped = events.num_rows - (pc.sum(enough).as_py() or 0)
            self.counts["underweight"] += dropped
            events = events.filter(enough) if dropped else events
        if self._drops_nonpositive:
            positive = pc.greater(events["weight"], 0)
            dropped = events.num_rows - (pc.sum(positive).as_py() or 0)
            self.counts["nonpositive"] += dropped
            events = events.filter(positive) if dropped else events
        if self._rules.binary:
            field, ones = events.schema.field("weight"), pa.array(np.ones(events.num_rows))
            events = events.set_column(events.schema.get_field_index("weight"), field, ones)
        return events


def select_records(batch: ParsedBatch, keep: Mask, without: Set[str] = frozenset()) -> ParsedBatch:
    """The records to keep, without the columns that nothing after the filter reads."""
    rows, mask, raw = np.flatnonzero(keep), pa.array(keep), batch.raw
    columns = {n: column.filter(mask) for n, column in batch.columns.items() if n not in without}
    return replace(
        batch, columns=columns, lines=batch.lines[rows], raw=lambda chosen: raw(rows[chosen])
    )
