"""Histograms of a log whose size does not grow with it: events by day, ids by number of events.

Tasks count the rows that they process anyway, and return the counts as counters of their
reports. The sums of these counters do not depend on how the rows were distributed over tasks.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from datetime import date, timedelta

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from embedmill.schemas.vocab import Histogram

__all__ = [
    "MICROSECONDS_PER_DAY",
    "TOP_IDS",
    "bin_indices",
    "bin_lower_bounds",
    "day_counters",
    "day_histogram",
    "id_counters",
    "id_histogram",
]

TOP_IDS = 5  # the most frequent ids of each side that are named
MICROSECONDS_PER_DAY = 24 * 3600 * 10**6
_BITS = 8  # leading bits of a count that decide its bin
_BINS_PER_LENGTH = 1 << (_BITS - 1)  # bins for the counts of one length in bits
_EPOCH = date(1970, 1, 1)

Ints = npt.NDArray[np.int64]


def day_counters(time: pa.ChunkedArray) -> dict[str, int]:
    """Numbers of events by day, for a report.

    Args:
        time: microseconds; nulls are left out.

    Returns:
        counters such as "day.20000": days (UTC) since 1970-01-01.
    """
    day = time.drop_null().to_numpy() // MICROSECONDS_PER_DAY
    if not len(day):
        return {}
    first = int(day.min())
    if int(day.max()) - first < len(day) + 100_000:
        counts = np.bincount(day - first)
        used = np.flatnonzero(counts)
        return _counters("day", used + first, counts[used])
    return _counters("day", *np.unique(day, return_counts=True))


def day_histogram(counters: Mapping[str, int]) -> list[tuple[str, int]]:
    """The days that have events (ISO dates, rising) and their counts.

    Args:
        counters: the sum of all reports; those of `day_counters` are used.
    """
    numbers = sorted(
        (int(name.removeprefix("day.")), count)
        for name, count in counters.items()
        if name.startswith("day.")
    )
    return [((_EPOCH + timedelta(days=day)).isoformat(), count) for day, count in numbers]


def bin_indices(counts: Ints) -> Ints:
    """The bin of each count [N]: counts with the same length and leading eight bits share one.

    A count below 256 has a bin of its own; other bins are at most 1/128 of their counts wide. A
    log of 2^40 events fills at most 4,352 bins. (The buckets of HdrHistogram.)
    """
    _, length = np.frexp(counts.astype(np.float64))
    dropped_bits: Ints = np.maximum(length.astype(np.int64) - _BITS, 0)
    return _BINS_PER_LENGTH * dropped_bits + (counts >> dropped_bits)


def bin_lower_bounds(bins: Ints) -> Ints:
    """The least count of each bin [N]; the inverse of `bin_indices`."""
    dropped_bits: Ints = np.maximum(bins // _BINS_PER_LENGTH - 1, 0)
    return bins - _BINS_PER_LENGTH * dropped_bits << dropped_bits


def id_counters(side: str, ids: pa.ChunkedArray, counts: pa.ChunkedArray) -> dict[str, int]:
    """A histogram of ids by their number of events, and the most frequent ids, for a report.

    Args:
        side: "user" or "item".
        ids: distinct ids.
        counts: events of each, at least 1.

    Returns:
        counters "<side>.ids.<least count of a bin>", "<side>.events.<least count of a bin>" and
        "<side>.heaviest.<id>".
    """
    events_of_id = counts.to_numpy()
    bins = bin_indices(events_of_id)
    ids_of_bin = np.bincount(bins)
    used = np.flatnonzero(ids_of_bin)
    lower_bounds = bin_lower_bounds(used)
    # The sums are floats, but exact: they stay below 2^53.
    events_of_bin = np.bincount(bins, weights=events_of_id)[used].astype(np.int64)
    counters = _counters(f"{side}.ids", lower_bounds, ids_of_bin[used])
    counters |= _counters(f"{side}.events", lower_bounds, events_of_bin)
    table = pa.table({"id": ids, "n": counts})
    order = [("n", "descending"), ("id", "ascending")]
    top = table.take(pc.select_k_unstable(table, TOP_IDS, order)).to_pylist()
    return counters | {f"{side}.heaviest.{row['id']}": row["n"] for row in top}


def id_histogram(counters: Mapping[str, int], side: str) -> Histogram:
    """The histogram of one side.

    Args:
        counters: the sum of all reports; those of `id_counters` are used.
        side: "user" or "item".
    """
    kinds: dict[str, dict[str, int]] = {"ids": {}, "events": {}, "heaviest": {}}
    for name, count in counters.items():
        name_side, _, rest = name.partition(".")
        kind, _, key = rest.partition(".")
        if name_side == side and kind in kinds:
            kinds[kind][key] = count
    keys = ((-n, name.encode(), name) for name, n in kinds["heaviest"].items())
    bins = sorted(kinds["ids"], key=int)
    return Histogram(
        counts=[(int(key), kinds["ids"][key], kinds["events"][key]) for key in bins],
        heaviest=[(name, -n) for n, _, name in heapq.nsmallest(TOP_IDS, keys)],
    )


def _counters(prefix: str, keys: Ints, counts: Ints) -> dict[str, int]:
    return {f"{prefix}.{k}": n for k, n in zip(keys.tolist(), counts.tolist(), strict=True)}
