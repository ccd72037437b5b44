"""The profile of a log as text for a terminal, in 80 columns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from textwrap import wrap

from embedmill.pipeline.report.profile import ProfileData
from embedmill.pipeline.report.sections.events_by_day import span_name
from embedmill.pipeline.report.sections.events_per_id import SIDES, by_side
from embedmill.pipeline.report.sections.row_counts import DROPS
from embedmill.pipeline.terminal import truncate
from embedmill.schemas.report import EventsByDay, EventsPerId, Overlaps

__all__ = ["lines"]

WIDTH = 80  # columns
_BLOCKS = " ▁▂▃▄▅▆▇█"
_BARS = 76  # columns of the chart over time
_EXAMPLES = 2  # rejected lines shown per reason
_BAR = 18  # columns of the longest bar of a histogram


def lines(data: ProfileData) -> Iterator[str]:
    """The lines of what `profile.gather` gives."""
    yield data.title
    for note in data.notes:
        yield from wrap(note, WIDTH, initial_indent="! ", subsequent_indent="  ")
    yield from _rows(data)
    yield from _days(data.log.days)
    sides = by_side(data.log)
    if sides:
        yield from _ids(sides)
    yield from _kept_and_split(data)
    yield from _overlap(data.log.base_run)


def _rows(data: ProfileData) -> Iterator[str]:
    """Rows by what became of them, and examples of rejected lines."""
    events = data.counters["events"]
    rows, files = events["rows_in"], data.files
    yield ""
    outside = data.files_outside
    rest = f", {outside:,} outside the requested days" if outside else ""
    yield f"rows       {rows:>13,}  in {files:,} file{'s' * (files != 1)}{rest}"
    parts = [("events", ""), ("merged", "duplicates"), ("rejected", "")]
    parts += [(name, why) for name, (_, why) in DROPS.items() if name in events]
    for name, why in parts:
        share = 100 * events[name] / rows
        yield truncate(f"  {name} {events[name]:>{21 - len(name)},} {share:>6.1f} %  {why}", WIDTH)
    for one in data.rejects:
        yield truncate(f"    {one.reason:<14} {one.count:>10,}  {one.meaning}", WIDTH)
        for example in one.examples[:_EXAMPLES]:
            where = f"{example.file}, line {example.line:,}"
            yield truncate(f"      {where}: {example.raw}", WIDTH)
    if "late" in events:
        yield f"  late     {events['late']:>13,}  of another day than their file’s folder"


def _days(days: EventsByDay | None) -> Iterator[str]:
    if days is None:
        return
    yield ""
    yield (
        f"days       {days.first} to {days.last} (UTC): {days.days:,}, {days.empty:,} of them empty"
    )
    day, most = days.most
    yield f"  events   {days.median:,.0f} a day at the median, {most:,} at most ({day})"
    bars = [count for _, count in days.bars]
    merged = -(-len(bars) // _BARS)  # bars of the page in one column
    sums = [sum(bars[first : first + merged]) for first in range(0, len(bars), merged)]
    span = days.span * merged
    yield f"  by {span_name(span)}"
    yield f"  {''.join(_block(count, max(sums)) for count in sums)}"


def _block(count: int, most: int) -> str:
    """A block whose height shows the count; a blank for 0."""
    return _BLOCKS[-(-count * 8 // most)]


def _ids(sides: Mapping[str, EventsPerId]) -> Iterator[str]:
    """Events per id: histograms by powers of two, and shares of the most frequent ids."""
    yield ""
    yield "events per id    users                            items"
    octaves = [{least: ids for least, ids, _ in one.octaves} for one in sides.values()]
    for least in sorted({least for ids in octaves for least in ids}):
        name = "1" if least == 1 else f"{least:,}-{2 * least - 1:,}"
        bars = (_bar(ids.get(least, 0), max(ids.values())) for ids in octaves)
        yield f"  {name:<13}  {'  '.join(bars)}".rstrip()
    yield ""
    yield f"most frequent ids        {'users':>13}   {'items':>13}"
    for name, (users, items) in _frequent(list(sides.values())):
        yield f"  {name:<23}{users:>13}   {items:>13}"
    for side, one in sides.items():
        ids = ", ".join(f"{i.title or i.id}: {i.events:,}" for i in one.heaviest)
        yield truncate(f"  most, {side:<7}{ids}", WIDTH)


def _frequent(sides: Sequence[EventsPerId]) -> Iterator[tuple[str, list[str]]]:
    """(what, [users, items]) about the most frequent ids."""
    yield "ids", [f"{one.ids:,}" for one in sides]
    yield "ids with one event", [_percent(one.once / one.ids) for one in sides]
    yield "median events", [f"{one.median:,}" for one in sides]
    yield "events of the first id", [_percent(one.largest) for one in sides]
    for pair in zip(*(one.shares for one in sides), strict=True):
        yield f"of the first {100 * pair[0][0]:g} %", [_percent(share) for _, share in pair]


def _bar(count: int, most: int) -> str:
    return f"{count:>10,} {'█' * -(-count * _BAR // most):<{_BAR}}"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _kept_and_split(data: ProfileData) -> Iterator[str]:
    """Events that the minimum counts keep, and the sizes of train, valid and test."""
    vocab, shards = (data.counters.get(stage) for stage in ("vocab", "shards"))
    if vocab is not None:
        yield ""
        share = _percent(vocab["events_kept"] / max(1, vocab["events_in"]))
        yield f"vocab      {vocab['events_kept']:>13,}  events, {share}"
        counted = by_side(data.log)
        for side in SIDES:
            minimum = counted[side].minimum if side in counted else 1
            least = f", of at least {minimum} events" if minimum > 1 else ""
            yield f"  {side:<9}{vocab[f'{side}_live']:>13,}  with a row{least}"
    if shards is None:
        return
    yield ""
    events = max(1, sum(shards[name] for name in ("train", "valid", "test")))
    yield f"split      by shards.split = '{data.split}'"
    for name in ("train", "valid", "test"):
        yield f"  {name:<9}{shards[name]:>13,}  {_percent(shards[name] / events)}"
    yield (
        f"  cold     {shards['cold_users_test']:>13,}  users of test without a train event, "
        f"and {shards['cold_items_test']:,} items"
    )


def _overlap(base_run: Overlaps | None) -> Iterator[str]:
    """Ids in common with the base run."""
    if base_run is None:
        return
    yield ""
    yield f"ids and the base run     {'users':>13}   {'items':>13}"
    users, items = base_run.users.as_json(), base_run.items.as_json()
    for key in ("before", "stayed", "gone", "new", "back", "now"):
        yield f"  {key:<23}{users[key]:>13,}   {items[key]:>13,}"
