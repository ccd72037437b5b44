"""Distributions of a log's events over days and over ids, from small tables of counts.

The size of the results does not depend on the size of the log.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from datetime import date, timedelta

from embedmill.schemas.report import EventsByDay, EventsPerId, FrequentId

__all__ = ["BARS", "POINTS", "events_by_day", "events_per_id"]

BARS = 180  # of the chart over time, at most
POINTS = 64  # of a curve, at most
_SPANS = (1, 7, 28, 91, 364)  # days of a bar
_SHARES = (0.01, 0.1, 0.5)

Bin = Sequence[int]  # least count, ids, events of these ids


def events_by_day(days: Sequence[tuple[str, int]]) -> EventsByDay | None:
    """Events over time, or None where there are no events.

    Args:
        days: (ISO date, events) of the days that have any, in order.
    """
    if not days:
        return None
    dated = [(date.fromisoformat(day), count) for day, count in days]
    first, last = dated[0][0], dated[-1][0]
    length = (last - first).days + 1
    span = next((s for s in _SPANS if s * BARS >= length), -(-length // BARS))
    bars = [0] * -(-length // span)
    for day, count in dated:
        bars[(day - first).days // span] += count
    most = max(dated, key=lambda pair: pair[1])
    return EventsByDay(
        first=first.isoformat(),
        last=last.isoformat(),
        days=length,
        empty=length - len(dated),
        median=_median_day([count for _, count in dated], length),
        most=(most[0].isoformat(), most[1]),
        span=span,
        bars=[
            ((first + timedelta(days=number * span)).isoformat(), count)
            for number, count in enumerate(bars)
        ],
    )


def _median_day(counts: Sequence[int], days: int) -> float:
    """The median of the counts and of zeros for the rest of the days."""
    rising, empty = sorted(counts), days - len(counts)
    middle = [
        rising[position - empty] if position >= empty else 0
        for position in ((days - 1) // 2, days // 2)
    ]
    return sum(middle) / 2


def events_per_id(
    bins: Sequence[Bin], heaviest: Sequence[tuple[str, int]], minimum: int
) -> EventsPerId:
    """The distribution of events over the ids of one side.

    Bins of 256 events and more are within 1/128 of the exact count, and so is what depends on
    them. The curve is after Clauset, Shalizi and Newman 2009, section 2.

    Args:
        bins: (least count, ids, events of these ids), counts rising.
        heaviest: (id, events) of the ids that have most, the first one first.
        minimum: events that an id needs to be kept.
    """
    ids, events = sum(b[1] for b in bins), sum(b[2] for b in bins)
    most = heaviest[0][1]
    return EventsPerId(
        ids=ids,
        events=events,
        median=_median(bins, ids),
        once=sum(b[1] for b in bins if b[0] == 1),
        minimum=minimum,
        below=sum(b[1] for b in bins if b[0] < minimum),
        shares=[(share, _events_of_first(bins, share * ids) / events) for share in _SHARES],
        largest=most / events,
        octaves=_octaves(bins),
        curve=_curve(bins, ids, most),
        heaviest=[FrequentId(id=raw_id, events=count) for raw_id, count in heaviest],
    )


def _median(bins: Sequence[Bin], ids: int) -> int:
    """The median count; the lower one where two are in the middle."""
    ends = itertools.accumulate(b[1] for b in bins)
    return next(b[0] for b, end in zip(bins, ends, strict=True) if end >= (ids + 1) // 2)


def _events_of_first(bins: Sequence[Bin], number: float) -> float:
    """Events of the `number` ids (at least one) that have most; an id of a bin has its mean."""
    left, total = max(1, round(number)), 0.0
    for _, ids, events in reversed(bins):
        taken = min(left, ids)
        total += events * taken / ids
        left -= taken
        if not left:
            break
    return total


def _octaves(bins: Sequence[Bin]) -> list[tuple[int, int, int]]:
    """(least count, ids, events) by powers of two."""
    sums: dict[int, list[int]] = {}
    for least, ids, events in bins:
        octave = sums.setdefault(1 << (least.bit_length() - 1), [0, 0])
        octave[0] += ids
        octave[1] += events
    return [(least, ids, events) for least, (ids, events) in sorted(sums.items())]


def _curve(bins: Sequence[Bin], ids: int, most: int) -> list[tuple[int, float]]:
    """Points at even steps of the count's logarithm, the first and the last bin among them."""
    at_least = ids
    points: list[tuple[int, float]] = []
    for least, number, _ in bins:
        points.append((least, at_least / ids))
        at_least -= number
    steps = math.log(most + 1) / (POINTS - 1)
    picked: dict[int, tuple[int, float]] = {}
    for point in points[:-1]:
        picked.setdefault(int(math.log(point[0]) / steps), point)
    return [*picked.values(), points[-1]]
