"""Events of whole users put in order, the rules about them applied, duplicates merged.

The result depends on the set of events alone: rows are sorted by (user, item, time, weight,
split) before anything is dropped or merged, and sums are taken in that order.

Legend: N rows in this order.
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
from embedmill.pipeline.prepare.rules.time_decay import left
from embedmill.pipeline.prepare.rules.user_limits import Crowd, capped, of_bots
from embedmill.pipeline.prepare.splits.assignment import mixed
from embedmill.schemas.events import EVENTS

__all__ = ["settle"]

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


def settle(table: pa.Table, config: EventsConfig, last: int = 0) -> tuple[pa.Table, dict[str, int]]:
    """Events sorted, with duplicates merged as `events.merge_by` says.

    Rows logged twice and bots are dropped first; what is left decays, is merged, and is capped.

    Args:
        table: schema EVENTS, any order; all events of a user are here. Where users have a cap,
            a column `hash` (int64) of user and item as well.
        config: "event" makes one of rows alike in user, item and time; "pair" of rows alike
            in user and item; "none" keeps all. The weight is the largest, the sum, that of
            the last, or the number of rows; the split is that of the last.
        last: the moment at which age is 0, in microseconds, where events decay.

    Returns:
        the events, and how many rows were merged and dropped, by reason.
    """
    user, user_codes = _ranked(table["user"])
    item, item_codes = _ranked(table["item"])
    split, split_codes = _ranked(table["split"])
    items, counts = max(1, len(item)), Counter[str]()
    rows = _sorted(table, user_codes * items + item_codes, split_codes)
    if config.drop_repeats:
        rows = _once(rows, split_codes, counts)
    rows = _without_bots(rows, items, config, counts)
    merged = _merged(rows, config, last)
    counts["merged"] = len(rows.at_N) - len(merged.at_N)
    rows = _enough(merged, config, counts)
    if config.signals.max_user_events:
        rows = _within_cap(rows, items, config, table["hash"].to_numpy(), counts)
    at = rows.at_N
    done = pa.Table.from_arrays(
        [
            user.take(pa.array(user_codes[at])),
            item.take(pa.array(item_codes[at])),
            pa.nulls(len(at), pa.int64()) if table["time"].null_count else pa.array(rows.time_N),
            pa.array(rows.weight_N),
            split.take(pa.array(split_codes[at], mask=split_codes[at] < 0)),
        ],
        schema=EVENTS,
    )
    return done, {**counts, "events": len(at)}


@dataclass(frozen=True)
class _Rows:
    """Events in order; `at_N` is where each stands in the table that it came from."""

    pair_N: Ints
    time_N: Ints
    weight_N: Floats
    at_N: Ints

    def crowd(self, items: int) -> Crowd:
        return Crowd(self.pair_N // items, self.pair_N, self.time_N)

    def without(self, gone_N: Mask) -> _Rows:
        if not gone_N.any():
            return self
        kept = np.flatnonzero(~gone_N)
        return _Rows(self.pair_N[kept], self.time_N[kept], self.weight_N[kept], self.at_N[kept])


def _sorted(table: pa.Table, pair: Ints, split: Ints) -> _Rows:
    time, weight = _time(table["time"]), table["weight"].to_numpy()
    order = order_by(pair, time, weight, split)
    return _Rows(pair[order], time[order], weight[order], order)


def _once(rows: _Rows, split: Ints, counts: Counter[str]) -> _Rows:
    """One of the rows that are alike in all; `split` is by place in the table."""
    again_N = np.zeros(len(rows.at_N), bool)
    keys = (rows.pair_N, rows.time_N, rows.weight_N, split[rows.at_N])
    again_N[1:] = np.logical_and.reduce([key_N[1:] == key_N[:-1] for key_N in keys])
    counts["repeated"] = int(again_N.sum())
    return rows.without(again_N)


def _without_bots(rows: _Rows, items: int, config: EventsConfig, counts: Counter[str]) -> _Rows:
    rules = config.signals
    if not rules.max_user_day or not len(rows.at_N):
        return rows
    crowd = rows.crowd(items)
    gone_N = of_bots(crowd, rules.max_user_day, whole=rules.bots == "user")
    counts["bots"] = int(gone_N.sum())
    counts["bot_users"] = len(np.unique(crowd.user_N[gone_N]))
    return rows.without(gone_N)


def _merged(rows: _Rows, config: EventsConfig, last: int) -> _Rows:
    """One of each group of duplicates, its weight made of theirs, each at its own age."""
    left_N = None
    if config.signals.half_life_days:
        left_N = left(rows.time_N, last, config.signals.half_life_days)
        rows = replace(rows, weight_N=rows.weight_N * left_N)
    if config.merge_by == "none" or not len(rows.at_N):
        return rows
    starts = _starts(rows.pair_N, rows.time_N if config.merge_by == "event" else None)
    lasts = np.append(starts[1:], len(rows.pair_N)) - 1
    if config.merge_weight == "count" and left_N is not None:
        weight_N = np.add.reduceat(left_N, starts)
    else:
        weight_N = _weights(rows.weight_N, starts, lasts, config.merge_weight)
    time_N = rows.time_N[starts if config.merge_time == "first" else lasts]
    return _Rows(rows.pair_N[lasts], time_N, weight_N, rows.at_N[lasts])


def _enough(rows: _Rows, config: EventsConfig, counts: Counter[str]) -> _Rows:
    """The events whose weight, when all is merged, is not too small."""
    least = config.signals.min_merged_weight
    if least is None:
        return rows
    gone_N = rows.weight_N < least
    counts["underweight_merged"] = int(gone_N.sum())
    return rows.without(gone_N)


def _within_cap(
    rows: _Rows, items: int, config: EventsConfig, hashes: Ints, counts: Counter[str]
) -> _Rows:
    """What the users' caps leave. `hashes` are of user and item, by place in the table."""
    hash_N = hashes[rows.at_N]
    if config.merge_by != "pair":  # where the time is a part of what an event is
        hash_N = hash_N ^ mixed(rows.time_N).view(np.int64)
    crowd, rules = rows.crowd(items), config.signals
    gone_N = capped(crowd, hash_N, rules.max_user_events, rules.keep)
    counts["capped"] = int(gone_N.sum())
    counts["capped_users"] = len(np.unique(crowd.user_N[gone_N]))
    return rows.without(gone_N)


def _ranked(column: pa.ChunkedArray) -> tuple[pa.Array, Ints]:
    """Distinct values in UTF-8 byte order, and the rank of each row (-1 for null)."""
    encoded = column.combine_chunks().dictionary_encode()
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.combine_chunks()
    order = pc.sort_indices(encoded.dictionary)
    rank = np.empty(len(order), np.int64)
    rank[order.to_numpy()] = np.arange(len(order))
    codes = encoded.indices.fill_null(-1).to_numpy().astype(np.int64)
    ranks = np.where(codes < 0, -1, rank[codes]) if len(rank) else codes
    return encoded.dictionary.take(order), ranks


def _time(column: pa.ChunkedArray) -> Ints:
    """Times; all 0 where the log has none."""
    return column.fill_null(0).to_numpy()  # type: ignore[no-any-return]


def _starts(pair: Ints, time: Ints | None) -> Ints:
    """Where each group of duplicates begins."""
    new = np.ones(len(pair), bool)
    new[1:] = pair[1:] != pair[:-1]
    if time is not None:
        new[1:] |= time[1:] != time[:-1]
    return np.flatnonzero(new)


def _weights(weight: Floats, starts: Ints, lasts: Ints, rule: str) -> Floats:
    if rule == "max":
        return np.maximum.reduceat(weight, starts)
    if rule == "sum":
        return np.add.reduceat(weight, starts)
    if rule == "count":
        return (lasts - starts + 1).astype(np.float64)
    return weight[lasts]
