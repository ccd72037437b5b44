"""Rows of the log: how many became events, and why the others did not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from embedmill.pipeline.report.sections import counters
from embedmill.pipeline.report.templating import Section, make_section
from embedmill.schemas.report import LogData

__all__ = ["DROPS", "section"]

# Counters of rows that a rule of the config drops: what they are called, and why they go.
DROPS = {
    "filtered": ("filtered", "do not meet events.filter"),
    "other_type": ("of another type", "events.signals.types gives it no weight"),
    "underweight": ("underweight", "weigh less than events.signals.min_weight"),
    "repeated": ("repeated", "copies of another row: events.drop_repeats"),
    "bots": (
        "of bots",
        "of users with more events on a day than events.signals.max_user_events_per_day",
    ),
    "nonpositive": (
        "nonpositive",
        "of zero or negative weight: events.signals.nonpositive",
    ),
    "underweight_merged": (
        "underweight when merged",
        "weigh less than events.signals.min_merged_weight",
    ),
    "capped": ("capped", "beyond the events.signals.max_user_events of their user"),
}
_EVENTS = ("late", "empty_lists")
_VOCAB = ("users_dropped", "items_dropped", "rounds")
# Shown where they are not zero.
_VOCAB_ROWS = [
    f"{s}_{c}" for s in ("users", "items") for c in ("back", "gone", "retired", "shared")
]


@dataclass(frozen=True)
class _Part:
    """A number of rows with its share; a `whole` is what the parts below it add up to."""

    name: str
    rows: int | None
    share: float | None = None
    reason: str = ""
    whole: bool = False


def section(data: LogData) -> Section:
    """Rows in and out of `events` and `vocab`, and the lines that were rejected."""
    events, vocab = data.counters["events"], data.counters.get("vocab", {})
    parts = list(_events(events))
    if vocab:
        parts += _vocab(vocab)
    kept = [(k, v) for k, v in vocab.items() if k in _VOCAB or (v and k in _VOCAB_ROWS)]
    return make_section(
        "data",
        "Data",
        "sections/row_counts.html",
        parts=parts,
        event_counters=counters.rows((k, v) for k, v in events.items() if k in _EVENTS),
        vocab_counters=counters.rows(kept),
        rejects=data.rejects,
    )


def _events(events: Mapping[str, int]) -> Iterator[_Part]:
    whole = events.get("rows_in")
    yield _Part("rows read", whole, whole=True)
    named = [
        ("became events", "events", ""),
        ("merged", "merged", "duplicates, merged into another event"),
        ("rejected", "rejected", "invalid, for the reasons below"),
        *((name, key, why) for key, (name, why) in DROPS.items() if key in events),
    ]
    for name, key, reason in named:
        yield _part(name, events.get(key), whole, reason)


def _vocab(vocab: Mapping[str, int]) -> Iterator[_Part]:
    whole = vocab.get("events_in")
    yield _Part("events", whole, whole=True)
    yield _part("kept", vocab.get("events_kept"), whole)
    reason = "of users or items below the minimum counts"
    yield _part("dropped", vocab.get("events_dropped"), whole, reason)


def _part(name: str, rows: int | None, whole: int | None, reason: str = "") -> _Part:
    share = rows / whole if whole and rows is not None else None
    return _Part(name, rows, share, reason)
