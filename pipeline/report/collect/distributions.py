"""How events spread over days and ids: figures from the small tables of `events` and `vocab`.

What comes out is of a size that does not depend on the log's.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from datetime import date, timedelta
from typing import Any

__all__ = ["BARS", "POINTS", "by_day", "over_ids"]

BARS = 180  # of the chart over time, at most
POINTS = 64  # of a curve, at most
_SPANS = (1, 7, 28, 91, 364)  # days of a bar
_SHARES = (0.01, 0.1, 0.5)

Bin = Sequence[int]  # least count, ids, events of these ids


def by_day(days: Sequence[tuple[str, int]]) -> dict[str, Any] | None:
    """Events over time, from days.json; None where there are no events.

    Returns:
        `first` and `last` day that has events, `days` from one to the other, how many are
        `empty`, the `median` day's events with empty days counted, `most` (day, events), and
        `bars` of `span` days each: (first day, events).
    """
    if not days:
        return None
    found = [(date.fromisoformat(day), count) for day, count in days]
    first, last = found[0][0], found[-1][0]
    length = (last - first).days + 1
    counts = sorted(count for _, count in found)
    empty = length - len(counts)
    middle = [
        counts[place - empty] if place >= empty else 0 for place in ((length - 1) // 2, length // 2)
    ]
    span = next((s for s in _SPANS if s * BARS >= length), -(-length // BARS))
    bars = [0] * -(-length // span)
    for day, count in found:
        bars[(day - first).days // span] += count
    most = max(found, key=lambda one: one[1])
    return {
        "first": first.isoformat(),
        "last": last.isoformat(),
        "days": length,
        "empty": empty,
        "median": sum(middle) / 2,
        "most": [most[0].isoformat(), most[1]],
        "span": span,
        "bars": [
            [(first + timedelta(days=place * span)).isoformat(), count]
            for place, count in enumerate(bars)
        ],
    }


def over_ids(spread: dict[str, Any], minimum: int) -> dict[str, Any]:
    """Events over the ids of one side, from counts.json.

    Counts of 256 and more are told to within 1/128, and so is what hangs on them.

    Args:
        spread: `counts` and `heaviest` as `vocab` stores them.
        minimum: events that an id needs to be kept.

    Returns:
        `ids` and `events` in all; `median` events of an id; ids with `once` an event and those
        `below` the minimum; `shares` of the events that the first 1 %, 10 % and 50 % of the ids
        have, and `largest` that of the first one; `octaves`: (least count, ids, events) by
        powers of two; `curve`: (count, share of the ids that have as many or more), falling
        (Clauset, Shalizi and Newman 2009, section 2); `heaviest`: {id, events}.
    """
    bins: list[Bin] = spread["counts"]
    ids, events = sum(b[1] for b in bins), sum(b[2] for b in bins)
    heaviest = [{"id": name, "events": n} for name, n in spread["heaviest"]]
    most = heaviest[0]["events"]
    return {
        "ids": ids,
        "events": events,
        "median": _median(bins, ids),
        "once": sum(b[1] for b in bins if b[0] == 1),
        "minimum": minimum,
        "below": sum(b[1] for b in bins if b[0] < minimum),
        "shares": [[share, _head(bins, share * ids) / events] for share in _SHARES],
        "largest": most / events,
        "octaves": _octaves(bins),
        "curve": _curve(bins, ids, most),
        "heaviest": heaviest,
    }


def _median(bins: Sequence[Bin], ids: int) -> int:
    """The lower of both middle ones where there are two."""
    ends = itertools.accumulate(b[1] for b in bins)
    return next(b[0] for b, end in zip(bins, ends, strict=True) if end >= (ids + 1) // 2)


def _head(bins: Sequence[Bin], wanted: float) -> float:
    """Events of the `wanted` ids that have most, one at least; a bin's ids have its mean."""
    left, found = max(1, round(wanted)), 0.0
    for _, ids, events in reversed(bins):
        taken = min(left, ids)
        found += events * taken / ids
        left -= taken
        if not left:
            break
    return found


def _octaves(bins: Sequence[Bin]) -> list[list[int]]:
    found: dict[int, list[int]] = {}
    for least, ids, events in bins:
        one = found.setdefault(1 << (least.bit_length() - 1), [0, 0])
        one[0] += ids
        one[1] += events
    return [[least, *sums] for least, sums in sorted(found.items())]


def _curve(bins: Sequence[Bin], ids: int, most: int) -> list[list[float]]:
    """Points at even steps of the count's logarithm, the first and the last bin among them."""
    above, points = ids, []
    for least, number, _ in bins:
        points.append([least, above / ids])
        above -= number
    steps = math.log(most + 1) / (POINTS - 1)
    picked: dict[int, list[float]] = {}
    for point in points[:-1]:
        picked.setdefault(int(math.log(point[0]) / steps), point)
    return [*picked.values(), points[-1]]
