"""The profile of a log as text for a terminal, in 80 columns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from textwrap import wrap
from typing import Any

from embedmill.pipeline.report.sections.events_by_day import span_name
from embedmill.pipeline.report.sections.events_per_id import SIDES
from embedmill.pipeline.report.sections.row_counts import DROPS
from embedmill.pipeline.terminal import truncate

__all__ = ["lines"]

WIDTH = 80  # columns
_BLOCKS = " ▁▂▃▄▅▆▇█"
_BARS = 76  # columns of the chart over time
_EXAMPLES = 2  # rejected lines shown per reason
_BAR = 18  # columns of the longest bar of a histogram


def lines(data: Mapping[str, Any]) -> Iterator[str]:
    """The lines of what `profile.gather` gives."""
    yield data["title"]
    for note in data["notes"]:
        yield from wrap(note, WIDTH, initial_indent="! ", subsequent_indent="  ")
    yield from _rows(data)
    yield from _days(data["log"].get("days"))
    if all(side in data["log"] for side in SIDES):
        yield from _ids(data["log"])
    yield from _kept_and_split(data)
    yield from _overlap(data["log"].get("previous"))


def _rows(data: Mapping[str, Any]) -> Iterator[str]:
    """Rows by what became of them, and examples of rejected lines."""
    events = data["counters"]["events"]
    rows, files = events["rows_in"], data["files"]
    yield ""
    outside = data["files_outside"]
    rest = f", {outside:,} outside the requested days" if outside else ""
    yield f"rows       {rows:>13,}  in {files:,} file{'s' * (files != 1)}{rest}"
    parts = [("events", ""), ("merged", "duplicates"), ("rejected", "")]
    parts += [(name, why) for name, (_, why) in DROPS.items() if name in events]
    for name, why in parts:
        share = 100 * events[name] / rows
        yield truncate(f"  {name} {events[name]:>{21 - len(name)},} {share:>6.1f} %  {why}", WIDTH)
    for one in data["rejects"]:
        yield truncate(f"    {one['reason']:<14} {one['count']:>10,}  {one['meaning']}", WIDTH)
        for example in one["examples"][:_EXAMPLES]:
            where = f"{example['file']}, line {example['line']:,}"
            yield truncate(f"      {where}: {example['raw']}", WIDTH)
    if "late" in events:
        yield f"  late     {events['late']:>13,}  of another day than their file’s folder"


def _days(days: Mapping[str, Any] | None) -> Iterator[str]:
    if days is None:
        return
    yield ""
    yield (
        f"days       {days['first']} to {days['last']} (UTC): {days['days']:,}, "
        f"{days['empty']:,} of them empty"
    )
    day, most = days["most"]
    yield f"  events   {days['median']:,.0f} a day at the median, {most:,} at most ({day})"
    bars = [count for _, count in days["bars"]]
    merged = -(-len(bars) // _BARS)  # bars of the page in one column
    sums = [sum(bars[first : first + merged]) for first in range(0, len(bars), merged)]
    span = days["span"] * merged
    yield f"  by {span_name(span)}"
    yield f"  {''.join(_block(count, max(sums)) for count in sums)}"


def _block(count: int, most: int) -> str:
    """A block whose height shows the count; a blank for 0."""
    return _BLOCKS[-(-count * 8 // most)]


def _ids(log: Mapping[str, Any]) -> Iterator[str]:
    """Events per id: histograms by powers of two, and shares of the most frequent ids."""
    yield ""
    yield "events per id    users                            items"
    octaves = {side: {least: ids for least, ids, _ in log[side]["octaves"]} for side in SIDES}
    for least in sorted({least for ids in octaves.values() for least in ids}):
        name = "1" if least == 1 else f"{least:,}-{2 * least - 1:,}"
        bars = (_bar(octaves[s].get(least, 0), max(octaves[s].values())) for s in SIDES)
        yield f"  {name:<13}  {'  '.join(bars)}".rstrip()
    yield ""
    yield f"most frequent ids        {'users':>13}   {'items':>13}"
    rows: list[tuple[str, Sequence[str]]] = [
        ("ids", [f"{log[s]['ids']:,}" for s in SIDES]),
        ("ids with one event", [_percent(log[s]["once"] / log[s]["ids"]) for s in SIDES]),
        ("median events", [f"{log[s]['median']:,}" for s in SIDES]),
        ("events of the first id", [_percent(log[s]["largest"]) for s in SIDES]),
    ]
    for n, (share, _) in enumerate(log["users"]["shares"]):
        name = f"of the first {100 * share:g} %"
        rows.append((name, [_percent(log[s]["shares"][n][1]) for s in SIDES]))
    for name, (users, items) in rows:
        yield f"  {name:<23}{users:>13}   {items:>13}"
    for side in SIDES:
        heaviest = log[side]["heaviest"]
        ids = ", ".join(f"{i.get('title') or i['id']}: {i['events']:,}" for i in heaviest)
        yield truncate(f"  most, {side:<7}{ids}", WIDTH)


def _bar(count: int, most: int) -> str:
    return f"{count:>10,} {'█' * -(-count * _BAR // most):<{_BAR}}"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _kept_and_split(data: Mapping[str, Any]) -> Iterator[str]:
    """Events that the minimum counts keep, and the sizes of train, valid and test."""
    vocab, shards = (data["counters"].get(stage) for stage in ("vocab", "shards"))
    if vocab is not None:
        yield ""
        share = _percent(vocab["events_kept"] / max(1, vocab["events_in"]))
        yield f"vocab      {vocab['events_kept']:>13,}  events, {share}"
        for side in SIDES:
            minimum = data["log"].get(side, {}).get("minimum", 1)
            least = f", of at least {minimum} events" if minimum > 1 else ""
            yield f"  {side:<9}{vocab[f'{side}_live']:>13,}  with a row{least}"
    if shards is None:
        return
    yield ""
    events = max(1, sum(shards[name] for name in ("train", "valid", "test")))
    yield f"split      by shards.split = '{data['split']}'"
    for name in ("train", "valid", "test"):
        yield f"  {name:<9}{shards[name]:>13,}  {_percent(shards[name] / events)}"
    yield (
        f"  cold     {shards['cold_users_test']:>13,}  users of test without a train event, "
        f"and {shards['cold_items_test']:,} items"
    )


def _overlap(overlap: Mapping[str, Mapping[str, int]] | None) -> Iterator[str]:
    """Ids in common with the base run."""
    if overlap is None:
        return
    yield ""
    yield f"ids and the base run     {'users':>13}   {'items':>13}"
    for key in ("before", "stayed", "gone", "new", "back", "now"):
        users, items = (f"{overlap[side][key]:,}" for side in SIDES)
        yield f"  {key:<23}{users:>13}   {items:>13}"
