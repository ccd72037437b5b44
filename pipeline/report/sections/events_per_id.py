"""How many events users and items have, and how many of them the most frequent ones have."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from embedmill.pipeline.report.charts.event_charts import per_id
from embedmill.pipeline.report.formatting import count, percent
from embedmill.pipeline.report.templating import Section, make_section

__all__ = ["SIDES", "section"]

SIDES = ("users", "items")

Log = Mapping[str, Any]


def section(log: Log) -> Section | None:
    """Curves, shares and histograms of both sides; None where they were not counted."""
    if not all(side in log for side in SIDES):
        return None
    return make_section(
        "ids",
        "Users and items",
        "sections/events_per_id.html",
        charts=[(side, _chart(side, log[side])) for side in SIDES],
        shares=list(_shares(log)),
        octaves=list(_octaves(log)),
        heaviest=[(side, log[side]["heaviest"]) for side in SIDES],
    )


def _chart(side: str, counts: Mapping[str, Any]) -> str:
    minimum = counts["minimum"]
    label = f"vocab.min_{side[:-1]}_count = {minimum}"
    return per_id([(x, y) for x, y in counts["curve"]], side, minimum, label)


def _shares(log: Log) -> Iterator[list[str]]:
    """Rows of (what, users, items) about the most and the least frequent ids."""
    yield ["ids", *(count(log[s]["ids"]) for s in SIDES)]
    yield ["median events of an id", *(count(log[s]["median"]) for s in SIDES)]
    name = "share of events of the most frequent id"
    yield [name, *(percent(log[s]["largest"]) for s in SIDES)]
    for n, (share, _) in enumerate(log["users"]["shares"]):
        name = f"share of events of the most frequent {100 * share:g} %"
        yield [name, *(percent(log[s]["shares"][n][1]) for s in SIDES)]
    for key, name in (("once", "ids with one event"), ("below", "ids below the minimum count")):
        parts = [(log[s][key], log[s]["ids"]) for s in SIDES]
        yield [name, *(f"{count(part)} ({percent(part / ids)})" for part, ids in parts)]


def _octaves(log: Log) -> Iterator[tuple[str, list[int]]]:
    """(events, [users, their events, items, their events]) by powers of two."""
    by_side = {side: {least: sums for least, *sums in log[side]["octaves"]} for side in SIDES}
    for least in sorted({least for octaves in by_side.values() for least in octaves}):
        name = count(least) if least == 1 else f"{count(least)} to {count(2 * least - 1)}"
        yield name, [n for side in SIDES for n in by_side[side].get(least, (0, 0))]
