"""Sections of the page about the data: what went in, what was dropped, how it was split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from embedmill.pipeline.report.sections import counters_table, section, table
from embedmill.pipeline.report.wording import count, escape

__all__ = ["DROPS", "ingested", "splits"]

_VOCABULARY = ("users_dropped", "items_dropped", "rounds")
# Shown where there are any.
_MOVED = [f"{s}_{c}" for s in ("users", "items") for c in ("back", "gone", "retired", "shared")]


# What a rule of the config drops, where there is one.
DROPS = {
    "filtered": ("filtered", "do not meet events.filter"),
    "other_type": ("of another type", "events.signals.types gives it no weight"),
    "underweight": ("underweight", "weigh less than events.signals.min_weight"),
    "repeated": ("repeated", "alike in all to another row: events.drop_repeats"),
    "bots": ("of bots", "of users with more events on a day than events.signals.max_user_day"),
    "underweight_merged": (
        "underweight when merged",
        "weigh less than events.signals.min_merged_weight",
    ),
    "capped": ("capped", "beyond the events.signals.max_user_events of their user"),
}


def ingested(data: Mapping[str, Any]) -> str:
    """Rows in and out of events and vocab, and the lines that were rejected."""
    events, vocab = data["counters"]["events"], data["counters"].get("vocab", {})
    rows = _flow(
        "rows read",
        events.get("rows_in"),
        [
            ("became events", events.get("events"), ""),
            ("merged", events.get("merged"), "duplicates, merged into another event"),
            ("rejected", events.get("rejected"), "could not be read: the reasons are below"),
            *((what, events[name], why) for name, (what, why) in DROPS.items() if name in events),
        ],
    )
    if vocab:
        why = "of users or items below the minimum counts"
        parts = [("kept", vocab.get("events_kept"), "")]
        parts += [("dropped", vocab.get("events_dropped"), why)]
        rows += _flow("events", vocab.get("events_in"), parts)
    body = table("Rows in and out", ["", "Rows", "Share", "Why"], rows, "tnnw", "flow")
    aside = [(k, v) for k, v in events.items() if k in ("late", "empty_lists")]
    if aside:
        body += counters_table("Events", aside)
    extra = [(k, v) for k, v in vocab.items() if k in _VOCABULARY or (v and k in _MOVED)]
    if extra:
        body += counters_table("Vocabulary", extra)
    return section(
        "data",
        "What went in, what was dropped",
        "Every row read is an event, a merged duplicate, a rejected line or dropped by a rule of "
        "the config: nothing else happens.",
        body + _rejects(data["rejects"]),
    )


def _flow(
    name: str, total: int | None, parts: Sequence[tuple[str, int | None, str]]
) -> list[list[str]]:
    rows = [[f"<strong>{escape(name)}</strong>", f"<strong>{count(total)}</strong>", "", ""]]
    for part, value, why in parts:
        share = f"{100 * value / total:.1f} %" if total and value is not None else "–"
        rows.append([f'<span class="part">{escape(part)}</span>', count(value), share, escape(why)])
    return rows


def _rejects(rejects: Sequence[Mapping[str, Any]]) -> str:
    if not rejects:
        return '<h3>Rejected lines</h3><p class="quiet">None. Every line could be read.</p>'
    parts = []
    for one in rejects:
        examples = "".join(
            f'<li><span class="where">{escape(e["file"])}, line {count(e["line"])}</span>'
            f"<code>{escape(e['raw']) or '(empty)'}</code></li>"
            for e in one["examples"]
        )
        parts.append(
            f'<div class="reject"><h4>{escape(one["reason"])} <b>{count(one["count"])}</b></h4>'
            f"{_meaning(one)}<ul>{examples}</ul></div>"
        )
    return f"<h3>Rejected lines, by reason</h3>{''.join(parts)}"


def _meaning(one: Mapping[str, Any]) -> str:
    return f'<p class="quiet">{escape(one["meaning"])}</p>' if one["meaning"] else ""


def splits(data: Mapping[str, Any]) -> str:
    """Sizes of train, validation and test, and what is cold in them; '' where nothing was split."""
    shards = data["counters"].get("shards")
    if shards is None:
        return ""
    sizes = [(name, int(shards.get(name, 0))) for name in ("train", "valid", "test")]
    total = sum(size for _, size in sizes) or 1
    names = {"train": "train", "valid": "validation", "test": "test"}
    bar = "".join(
        f'<i class="{name}" style="flex:{max(size / total, 0.002):.4f}"></i>'
        for name, size in sizes
        if size
    )
    legend = "".join(
        f'<li class="{name}"><b>{names[name]}</b> {count(size)} '
        f"<span>{100 * size / total:.1f} %</span></li>"
        for name, size in sizes
    )
    known = [(k, v) for k, v in shards.items() if k not in ("train", "valid", "test", "events_in")]
    how = {
        "last": "each user’s last events are held out",
        "time": "everything after a moment in time is held out",
        "random": "a random share of the events is held out",
        "given": "the log says which events are held out",
    }[data["split"]]
    return section(
        "splits",
        "The split",
        f"Decided once and stored: {how}.",
        f'<div class="split" aria-hidden="true">{bar}</div><ul class="legend">{legend}</ul>'
        + counters_table("Counted while splitting", known),
    )
