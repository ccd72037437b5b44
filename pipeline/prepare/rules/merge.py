"""The rules on whole users, and the merging of duplicate events.

The result depends only on the set of events: rows are sorted by (user, item, time, weight,
split) before anything is dropped or merged, and sums are taken in that order.

Legend: N events in this order.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from embedmill.pipeline.config import EventsConfig
from embedmill.pipeline.prepare.engine.ordering import order_by
from embedmill.pipeline.prepare.hashing import mix64
from embedmill.pipeline.prepare.rules.row_rules import drops_nonpositive
from embedmill.pipeline.prepare.rules.time_decay import remaining_weight
from embedmill.pipeline.prepare.rules.user_limits import UserEvents, bot_events, events_over_limit
from embedmill.schemas.events import EVENTS

__all__ = ["merge_events"]

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


def merge_events(
    table: pa.Table, config: EventsConfig, reference_time: int = 0
) -> tuple[pa.Table, dict[str, int]]:
    """Sort events, apply the rules on whole users, and merge duplicates.

    In this order: rows logged twice are dropped (`drop_repeats`), bots are dropped, weights
    decay, duplicates are merged (`merge_by`), events of no or too little weight are dropped, and
    each user keeps at most `max_user_events`.

    Args:
        table: schema EVENTS, in any order, with all events of each of its users. If
            `max_user_events` is set, also a column `hash` (int64) of user and item.
        config: `merge_by = "event"` merges events with the same user, item and time, "pair"
            those with the same user and item, "none" merges nothing. The merged weight is the
            largest, the sum, the last one's, or the number of events (`merge_weight`); the
            split is the last one's.
        reference_time: the moment at which an event's age is 0, in microseconds, if weights
            decay.

    Returns:
        the events (schema EVENTS), and the numbers of events, of merged and of dropped rows.
    """
    user, user_codes = _rank_values(table["user"])
    item, item_codes = _rank_values(table["item"])
    split, split_codes = _rank_values(table["split"])
    items, counts = max(1, len(item)), Counter[str]()
    rows = _sort(table, user_codes * items + item_codes, split_codes)
    if config.drop_repeats:
        rows = _drop_repeats(rows, split_codes, counts)
    rows = _drop_bots(rows, items, config, counts)
    merged = _merge_duplicates(rows, config, reference_time)
    counts["merged"] = len(rows.position_N) - len(merged.position_N)
    rows = _drop_nonpositive(merged, config, counts)
    rows = _drop_underweight(rows, config, counts)
    if config.signals.max_user_events:
        rows = _limit_users(rows, items, config, table["hash"].to_numpy(), counts)
    position = rows.position_N
    splits = split_codes[position]
    events = pa.Table.from_arrays(
        [
            user.take(pa.array(user_codes[position])),
            item.take(pa.array(item_codes[position])),
            _time_column(rows, has_times=not table["time"].null_count),
            pa.array(rows.weight_N),
            split.take(pa.array(splits, mask=splits < 0)),
        ],
        schema=EVENTS,
    )
    return events, {**counts, "events": len(position)}


@dataclass(frozen=True)
class _Rows:
    """Sorted events; `position_N` is the row of each in the table that it came from."""

    pair_N: Ints
    time_N: Ints
    weight_N: Floats
    position_N: Ints

    def user_events(self, items: int) -> UserEvents:
        return UserEvents(self.pair_N // items, self.pair_N, self.time_N)

    def without(self, dropped_N: Mask) -> _Rows:
        if not dropped_N.any():
            return self
        left = np.flatnonzero(~dropped_N)
        return _Rows(
            self.pair_N[left], self.time_N[left], self.weight_N[left], self.position_N[left]
        )


def _sort(table: pa.Table, pair: Ints, split: Ints) -> _Rows:
    # A log without times has nulls; 0 stands for them while events are compared.
    time, weight = table["time"].fill_null(0).to_numpy(), table["weight"].to_numpy()
    order = order_by(pair, time, weight, split)
    return _Rows(pair[order], time[order], weight[order], order)


def _time_column(rows: _Rows, *, has_times: bool) -> pa.Array:
    return pa.array(rows.time_N) if has_times else pa.nulls(len(rows.time_N), pa.int64())


def _drop_repeats(rows: _Rows, split: Ints, counts: Counter[str]) -> _Rows:
    """One of the rows that agree in every column; `split` is in the order of the table."""
    repeated_N = np.zeros(len(rows.position_N), bool)
    keys = (rows.pair_N, rows.time_N, rows.weight_N, split[rows.position_N])
    repeated_N[1:] = np.logical_and.reduce([key_N[1:] == key_N[:-1] for key_N in keys])
    counts["repeated"] = int(repeated_N.sum())
    return rows.without(repeated_N)


def _drop_bots(rows: _Rows, items: int, config: EventsConfig, counts: Counter[str]) -> _Rows:
    rules = config.signals
    if not rules.max_user_events_per_day or not len(rows.position_N):
        return rows
    events = rows.user_events(items)
    is_bot_N = bot_events(events, rules.max_user_events_per_day, whole_user=rules.bots == "user")
    counts["bots"] = int(is_bot_N.sum())
    counts["bot_users"] = len(np.unique(events.user_N[is_bot_N]))
    return rows.without(is_bot_N)


def _merge_duplicates(rows: _Rows, config: EventsConfig, reference_time: int) -> _Rows:
    """One event for each group of duplicates. Each duplicate's weight decays by its own age."""
    share_N = None
    if config.signals.half_life_days:
        share_N = remaining_weight(rows.time_N, reference_time, config.signals.half_life_days)
        rows = replace(rows, weight_N=rows.weight_N * share_N)
    if config.merge_by == "none" or not len(rows.position_N):
        return rows
    starts = _group_starts(rows.pair_N, rows.time_N if config.merge_by == "event" else None)
    lasts = np.append(starts[1:], len(rows.pair_N)) - 1
    if config.merge_weight == "count" and share_N is not None:
        weight_N = np.add.reduceat(share_N, starts)
    else:
        weight_N = _merged_weights(rows.weight_N, starts, lasts, config.merge_weight)
    time_N = rows.time_N[starts if config.merge_time == "first" else lasts]
    return _Rows(rows.pair_N[lasts], time_N, weight_N, rows.position_N[lasts])


def _drop_nonpositive(rows: _Rows, config: EventsConfig, counts: Counter[str]) -> _Rows:
    if not drops_nonpositive(config):
        return rows
    nonpositive_N = rows.weight_N <= 0
    counts["nonpositive"] += int(nonpositive_N.sum())
    return rows.without(nonpositive_N)


def _drop_underweight(rows: _Rows, config: EventsConfig, counts: Counter[str]) -> _Rows:
    min_weight = config.signals.min_merged_weight
    if min_weight is None:
        return rows
    underweight_N = rows.weight_N < min_weight
    counts["underweight_merged"] = int(underweight_N.sum())
    return rows.without(underweight_N)


def _limit_users(
    rows: _Rows, items: int, config: EventsConfig, hashes: Ints, counts: Counter[str]
) -> _Rows:
    """At most `max_user_events` of each user; `hashes` are in the order of the table."""
    hash_N = hashes[rows.position_N]
    if config.merge_by != "pair":  # then a pair may have several events, told apart by time
        hash_N = hash_N ^ mix64(rows.time_N).view(np.int64)
    events, rules = rows.user_events(items), config.signals
    over_N = events_over_limit(events, hash_N, rules.max_user_events, rules.keep)
    counts["capped"] = int(over_N.sum())
    counts["capped_users"] = len(np.unique(events.user_N[over_N]))
    return rows.without(over_N)


def _rank_values(column: pa.ChunkedArray) -> tuple[pa.Array, Ints]:
    """Distinct values in UTF-8 byte order, and the rank of each row's value (-1 for null)."""
    encoded = column.combine_chunks().dictionary_encode()
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.combine_chunks()
    order = pc.sort_indices(encoded.dictionary)
    rank = np.empty(len(order), np.int64)
    rank[order.to_numpy()] = np.arange(len(order))
    codes = encoded.indices.fill_null(-1).to_numpy().astype(np.int64)
    ranks = np.where(codes < 0, -1, rank[codes]) if len(rank) else codes
    return encoded.dictionary.take(order), ranks


def _group_starts(pair: Ints, time: Ints | None) -> Ints:
    """Positions at which a group of duplicates begins; `time` is given if it separates them."""
    begins = np.ones(len(pair), bool)
    begins[1:] = pair[1:] != pair[:-1]
    if time is not None:
        begins[1:] |= time[1:] != time[:-1]
    return np.flatnonzero(begins)


def _merged_weights(weight: Floats, starts: Ints, lasts: Ints, rule: str) -> Floats:
    if rule == "max":
        return np.maximum.reduceat(weight, starts)
    if rule == "sum":
        return np.add.reduceat(weight, starts)
    if rule == "count":
        return (lasts - starts + 1).astype(np.float64)
    return weight[lasts]
