"""What a log looks like, in tables that do not grow with it: for `profile` and the report.

Tasks count while they have the rows in hand anyway and hand the counts back in their reports;
sums of these do not depend on how the rows lay.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from datetime import date, timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

__all__ = ["DAY", "HEAVIEST", "bin_of", "by_day", "counted", "days", "least_of", "spread_of"]

HEAVIEST = 5  # ids named of each side
DAY = 24 * 3600 * 10**6  # microseconds
_BITS = 8  # a count is told to so many leading bits
_HALF = 1 << (_BITS - 1)
_EPOCH = date(1970, 1, 1)

Ints = npt.NDArray[np.int64]


def days(time: pa.ChunkedArray) -> dict[str, int]:
    """Counts of events by day, for a report: "day.20000", days (UTC) since 1970-01-01."""
    day = time.drop_null().to_numpy() // DAY
    if not len(day):
        return {}
    first = int(day.min())
    if int(day.max()) - first < len(day) + 100_000:
        found = np.bincount(day - first)
        at = np.flatnonzero(found)
        return _named("day", at + first, found[at])
    return _named("day", *np.unique(day, return_counts=True))


def by_day(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    """Days that have events, as ISO dates in order, with their counts: for days.json."""
    numbers = sorted(
        (int(name.removeprefix("day.")), count)
        for name, count in counts.items()
        if name.startswith("day.")
    )
    return [((_EPOCH + timedelta(days=day)).isoformat(), count) for day, count in numbers]


def bin_of(counts: Ints) -> Ints:
    """The number of the bin of each count [N]: counts of a bin share their leading eight bits.

    Counts below 256 have bins of their own, others bins no wider than 1/128 of them; a log of
    2^40 events fills at most 4,352. (As HdrHistogram's buckets.)
    """
    _, length = np.frexp(counts.astype(np.float64))
    dropped: Ints = np.maximum(length.astype(np.int64) - _BITS, 0)
    return _HALF * dropped + (counts >> dropped)


def least_of(bins: Ints) -> Ints:
    """The least count of each bin [N]."""
    dropped: Ints = np.maximum(bins // _HALF - 1, 0)
    return bins - _HALF * dropped << dropped


def counted(side: str, ids: pa.ChunkedArray, counts: pa.ChunkedArray) -> dict[str, int]:
    """For a report: how many ids have how many events, and which have most.

    Args:
        side: "user" or "item".
        ids: distinct.
        counts: events of each, at least 1.
    """
    number = counts.to_numpy()
    bins = bin_of(number)
    size = np.bincount(bins)
    at = np.flatnonzero(size)
    least = least_of(at)
    found = _named(f"{side}.ids", least, size[at])
    # Sums of floats, and exact: they stay below 2^53.
    events = np.bincount(bins, weights=number)[at].astype(np.int64)
    found |= _named(f"{side}.events", least, events)
    table = pa.table({"id": ids, "n": counts})
    order = [("n", "descending"), ("id", "ascending")]
    first = table.take(pc.select_k_unstable(table, HEAVIEST, order)).to_pylist()
    return found | {f"{side}.heaviest.{one['id']}": one["n"] for one in first}


def spread_of(counts: Mapping[str, int], side: str) -> dict[str, Any]:
    """A side of counts.json, from the sum of all reports.

    Returns:
        `counts`: [least count, ids, events of these ids] of each bin that has ids, rising;
        `heaviest`: [id, events] of the ids with most events, ties by id.
    """
    found: dict[str, dict[str, int]] = {"ids": {}, "events": {}, "heaviest": {}}
    for name, count in counts.items():
        own, _, rest = name.partition(".")
        kind, _, key = rest.partition(".")
        if own == side and kind in found:
            found[kind][key] = count
    first = heapq.nsmallest(HEAVIEST, ((-n, i.encode(), i) for i, n in found["heaviest"].items()))
    return {
        "counts": [
            [int(key), found["ids"][key], found["events"][key]]
            for key in sorted(found["ids"], key=int)
        ],
        "heaviest": [[i, -n] for n, _, i in first],
    }


def _named(what: str, keys: Ints, counts: Ints) -> dict[str, int]:
    return {f"{what}.{k}": n for k, n in zip(keys.tolist(), counts.tolist(), strict=True)}
