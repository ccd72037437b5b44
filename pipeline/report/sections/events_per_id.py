"""How many events users and items have, and how many of them the most frequent ones have."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from embedmill.pipeline.report.charts.event_charts import per_id
from embedmill.pipeline.report.formatting import count, percent
from embedmill.pipeline.report.templating import Section, make_section
from embedmill.schemas.report import EventsPerId, LogDistributions

__all__ = ["SIDES", "by_side", "section"]

SIDES = ("users", "items")

Sides = Mapping[str, EventsPerId]  # users, then items


def by_side(log: LogDistributions) -> Sides:
    """Events per id of users and of items; empty where they were not counted."""
    if log.users is None or log.items is None:
        return {}
    return {"users": log.users, "items": log.items}


def section(log: LogDistributions) -> Section | None:
    """Curves, shares and histograms of both sides; None where they were not counted."""
    sides = by_side(log)
    if not sides:
        return None
    return make_section(
        "ids",
        "Users and items",
        "sections/events_per_id.html",
        charts=[(side, _chart(side, one)) for side, one in sides.items()],
        shares=list(_shares(sides)),
        octaves=list(_octaves(sides)),
        heaviest=[(side, one.heaviest) for side, one in sides.items()],
    )


def _chart(side: str, one: EventsPerId) -> str:
    label = f"vocab.min_{side[:-1]}_count = {one.minimum}"
    return per_id(one.curve, side, one.minimum, label)


def _shares(sides: Sides) -> Iterator[list[str]]:
    """Rows of (what, users, items) about the most and the least frequent ids."""

    def row(name: str, cell: Callable[[EventsPerId], str]) -> list[str]:
        return [name, *(cell(one) for one in sides.values())]

    yield row("ids", lambda one: count(one.ids))
    yield row("median events of an id", lambda one: count(one.median))
    yield row("share of events of the most frequent id", lambda one: percent(one.largest))
    shares = zip(*(one.shares for one in sides.values()), strict=True)
    for pair in shares:
        name = f"share of events of the most frequent {100 * pair[0][0]:g} %"
        yield [name, *(percent(of_events) for _, of_events in pair)]
    yield row("ids with one event", lambda one: _of_ids(one.once, one))
    yield row("ids below the minimum count", lambda one: _of_ids(one.below, one))


def _of_ids(part: int, one: EventsPerId) -> str:
    return f"{count(part)} ({percent(part / one.ids)})"


def _octaves(sides: Sides) -> Iterator[tuple[str, list[int]]]:
    """(events, [users, their events, items, their events]) by powers of two."""
    sums = [{least: (ids, n) for least, ids, n in one.octaves} for one in sides.values()]
    for least in sorted({least for one in sums for least in one}):
        name = count(least) if least == 1 else f"{count(least)} to {count(2 * least - 1)}"
        yield name, [n for one in sums for n in one.get(least, (0, 0))]
