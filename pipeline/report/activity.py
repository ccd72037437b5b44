"""Sections of the page about how events spread: over days, over users and items, between runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from embedmill.pipeline.report import plots
from embedmill.pipeline.report.sections import section, table
from embedmill.pipeline.report.wording import count, escape, plural, title

__all__ = ["SPANS", "activity", "continued", "who"]

SIDES = ("users", "items")
SPANS = {1: "day", 7: "week", 28: "4 weeks", 91: "quarter", 364: "year"}


def activity(log: Mapping[str, Any]) -> str:
    """Events over time."""
    days = log.get("days")
    if days is None:
        return ""
    span = SPANS.get(days["span"], f"{days['span']} days")
    drawn = plots.bars(days["bars"], (f"first day of each {span}, UTC", "events"))
    intro = (
        f"From {days['first']} to {days['last']}: {plural(days['days'], 'day')}, "
        f"{count(days['empty'])} of them without an event. A day has {days['median']:,.0f} at the "
        f"median and {count(days['most'][1])} at most, on {days['most'][0]}."
    )
    body = f"<figure><figcaption>Events by {escape(span)}</figcaption>{drawn}</figure>"
    return section("activity", "Over time", intro, body)


def who(log: Mapping[str, Any]) -> str:
    """Events of users and of items: who has how many, and how much the first ones have."""
    if not all(side in log for side in SIDES):
        return ""
    charts = "".join(_chart(side, log[side]) for side in SIDES)
    named = "".join(_heaviest(side, log[side]) for side in SIDES)
    body = f'<div class="pair">{charts}</div>{_shares(log)}{_octaves(log)}<div class="pair">{named}'
    return section(
        "ids",
        "Users and items",
        "All ids of the log’s events, before the minimum counts. A straight line falling to the "
        "right is a power law: few have most of the events.",
        f"{body}</div>",
    )


def _chart(side: str, one: Mapping[str, Any]) -> str:
    least = one["minimum"]
    mark = (least, f"vocab.min_{side[:-1]}_count = {least}") if least > 1 else None
    drawn = plots.loglog([(x, y) for x, y in one["curve"]], ("events", side), mark)
    return f"<figure><figcaption>Events of {side}</figcaption>{drawn}</figure>"


def _shares(log: Mapping[str, Any]) -> str:
    """Head and tail of both sides beside each other."""
    rows = [["ids", *(count(log[side]["ids"]) for side in SIDES)]]
    rows.append(["events of one, at the median", *(count(log[s]["median"]) for s in SIDES)])
    rows.append(["share of the events that one has at most", *_percents(log, "largest")])
    for place, (share, _) in enumerate(log["users"]["shares"]):
        said = f"share of the events that the first {100 * share:g} % have"
        rows.append([said, *(_percent(log[side]["shares"][place][1]) for side in SIDES)])
    for key, said in (("once", "with a single event"), ("below", "below the minimum count")):
        of_ids = (f"{count(log[s][key])} ({_percent(log[s][key] / log[s]['ids'])})" for s in SIDES)
        rows.append([said, *of_ids])
    return table("Head and tail", ["", "Users", "Items"], rows, "tnn")


def _percents(log: Mapping[str, Any], key: str) -> Sequence[str]:
    return [_percent(log[side][key]) for side in SIDES]


def _percent(share: float) -> str:
    return f"{100 * share:.1f}&nbsp;%"


def _octaves(log: Mapping[str, Any]) -> str:
    """How many ids have 1, 2 to 3, 4 to 7, … events, and how many events these are."""
    found = {side: {least: sums for least, *sums in log[side]["octaves"]} for side in SIDES}
    rows = []
    for least in sorted({least for one in found.values() for least in one}):
        sums = [value for side in SIDES for value in found[side].get(least, (0, 0))]
        name = count(least) if least == 1 else f"{count(least)} to {count(2 * least - 1)}"
        rows.append([name, *map(count, sums)])
    head = ["Events", "Users", "Their events", "Items", "Their events"]
    made = table("Ids by how many events they have", head, rows, "nnnnn")
    return f"<details><summary>Ids by how many events they have</summary>{made}</details>"


def _heaviest(side: str, one: Mapping[str, Any]) -> str:
    rows = [[title(o.get("title") or o["id"]), count(o["events"])] for o in one["heaviest"]]
    return table(f"{side.capitalize()} with most events", ["", "Events"], rows, "tn")


def continued(log: Mapping[str, Any]) -> str:
    """Ids that this run has in common with the one it continues."""
    previous = log.get("previous")
    if previous is None:
        return ""
    said = {
        "before": "in use in the previous run",
        "stayed": "in use in both",
        "gone": "retired in this run",
        "new": "new in this run",
        "back": "back on their rows after having been retired",
        "now": "in use in this run",
    }
    rows = [
        [escape(what), *(_of(previous[side], key) for side in SIDES)] for key, what in said.items()
    ]
    return section(
        "previous",
        "Beside the previous run",
        "The vocabulary continues that of another run: what stayed has kept its row.",
        table("Ids of both runs", ["", "Users", "Items"], rows, "tnn"),
    )


def _of(one: Mapping[str, int], key: str) -> str:
    """A count, with its share of the run before or of this one."""
    whole = one["before"] if key in ("stayed", "gone") else one["now"]
    share = f" ({_percent(one[key] / whole)})" if key not in ("before", "now") and whole else ""
    return f"{count(one[key])}{share}"
