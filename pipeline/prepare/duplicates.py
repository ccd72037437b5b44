"""The order of events inside a file, and the merging of duplicates.

The result depends on the set of events alone: rows are sorted by (user, item, time, weight,
split) before anything is merged, and sums are taken in that order.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.config import EventsConfig
from pipeline.prepare.ordering import order_by
from schemas.tables import EVENTS

__all__ = ["settle"]

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


def settle(table: pa.Table, config: EventsConfig) -> pa.Table:
    """Events sorted, with duplicates merged as `events.merge_by` says.

    Args:
        table: schema EVENTS, any order; all events of a user and item are here.
        config: "event" makes one of rows alike in user, item and time; "pair" of rows alike
            in user and item; "none" keeps all. The weight is the largest, the sum, that of
            the last, or the number of rows; the split is that of the last.
    """
    user, user_codes = _ranked(table["user"])
    item, item_codes = _ranked(table["item"])
    split, split_codes = _ranked(table["split"])
    time = _time(table["time"])
    weight = table["weight"].to_numpy()
    pair = user_codes * max(1, len(item)) + item_codes
    order = order_by(pair, time, weight, split_codes)
    pair, time, weight = pair[order], time[order], weight[order]
    if config.merge_by != "none" and len(order):
        starts = _starts(pair, time if config.merge_by == "event" else None)
        lasts = np.append(starts[1:], len(pair)) - 1
        weight = _weights(weight, starts, lasts, config.merge_weight)
        time = time[starts if config.merge_time == "first" else lasts]
        order = order[lasts]
    return pa.Table.from_arrays(
        [
            user.take(pa.array(user_codes[order])),
            item.take(pa.array(item_codes[order])),
            pa.nulls(len(time), pa.int64()) if table["time"].null_count else pa.array(time),
            pa.array(weight),
            split.take(pa.array(split_codes[order], mask=split_codes[order] < 0)),
        ],
        schema=EVENTS,
    )


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
