"""Artifact `events`: cleaned events, rejected lines, item metadata, events by day.

`user` and `item` are raw ids (UTF-8); `time` is in microseconds since 1970-01-01 UTC, null where
the log has none; `weight` is what the log says of the event (a rating, a count; 1 where it says
nothing).
"""

from __future__ import annotations

import pyarrow as pa

from embedmill.schemas.contract import ArtifactContract, Count, Counters, Law
from embedmill.schemas.files import JsonFile, PartFiles

__all__ = [
    "CODES",
    "CONTRACT",
    "DATA",
    "DAYS",
    "EVENTS",
    "FORGOTTEN",
    "ITEMS",
    "ITEMS_META",
    "REASONS",
    "REJECTED",
    "REJECTS",
    "RULES",
    "too_many_rejects",
]

# `split` is null unless `shards.split = "given"`.
EVENTS = pa.schema(
    [
        pa.field("user", pa.string(), nullable=False),
        pa.field("item", pa.string(), nullable=False),
        pa.field("time", pa.int64()),
        pa.field("weight", pa.float64(), nullable=False),
        pa.field("split", pa.string()),
    ]
)

# `line` counts from 1 (for Parquet: the row); `raw` is the line as it stood in the file, at most
# 4,096 bytes of it. All rejects are counted; of each reason the first `events.keep_rejects` of the
# files that one task reads together are stored.
REJECTS = pa.schema(
    [
        pa.field("file", pa.string(), nullable=False),
        pa.field("line", pa.int64(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("raw", pa.binary(), nullable=False),
    ]
)

# `categories` may be empty.
ITEMS_META = pa.schema(
    [
        pa.field("item", pa.string(), nullable=False),
        pa.field("title", pa.string(), nullable=False),
        pa.field("categories", pa.list_(pa.field("element", pa.string(), nullable=False))),
    ]
)

# Events, one file for each bucket of users.
DATA = PartFiles("data")
# Rejected lines, one file for each group of raw files that has any.
REJECTED = PartFiles("rejects")
# Item metadata sorted by id, where the config names any.
ITEMS = "items.parquet"
# Days (UTC) that have events, as ISO dates in order, with their counts; where the log has times.
DAYS = JsonFile("days.json", list[tuple[str, int]])

# Reason of a reject → what it means. The first ones are found by the source formats.
REASONS: dict[str, str] = {
    "columns": "another number of columns than the header",
    "encoding": "bytes that the encoding does not have",
    "line_too_long": "a line longer than events.max_line_bytes",
    "quote": "a quote that is not closed, or text after a closing quote",
    "json": "no JSON object",
    "explode": "no list where events.explode names one",
    "user_missing": "no user",
    "item_missing": "no item",
    "id_not_whole": "a user or item that is a number with a fraction, or a float above 2^64 - 1",
    "id_too_long": "a user or item longer than events.max_id_bytes",
    "time": "a time that cannot be read",
    "time_range": "a time before events.time_min or after events.time_max",
    "weight": "a weight that is no number",
    "weight_range": "a weight that is NaN, infinite or beyond 32-bit floats",
    "type": "a type that events.signals.types does not name",
    "split": "no split",
}
CODES = {reason: code for code, reason in enumerate(REASONS)}

# Counter of what a rule dropped → the config key of the rule, in the order of the rules.
RULES: dict[str, str] = {
    "filtered": "events.filter",
    "other_type": "events.signals.types",
    "underweight": "events.signals.min_weight",
    "repeated": "events.drop_repeats",
    "bots": "events.signals.max_user_events_per_day",
    "nonpositive": "events.signals.nonpositive",
    "underweight_merged": "events.signals.min_merged_weight",
    "capped": "events.signals.max_user_events",
}

# Counter of records whose user or item was forgotten (`embedmill forget`).
FORGOTTEN = "forgotten"


def too_many_rejects(counters: Counters, most: float) -> str:
    """A sentence if more than the share `most` of the lines read is bad, or all are; else ''.

    Lines that rules dropped before they were parsed do not count as read.
    """
    rows = counters["rows_in"] - sum(
        counters.get(name, 0) for name in ("filtered", "other_type", FORGOTTEN)
    )
    bad = counters["rejected"]
    if not rows or (bad <= most * rows and bad < rows):
        return ""
    if bad == rows:
        return f"{bad:,} of {rows:,} lines are bad, so that none is an event"
    return f"{bad:,} of {rows:,} lines are bad, more than events.max_rejects = {most:g} allows"


def _status(c: Counters, n: Count) -> str:
    dropped = c["rows_in"] - c["events"] - c["rejected"] - c["merged"]
    if dropped:
        return f"{n(c['events'])} events, {n(c['rejected'])} rejected, {n(dropped)} dropped"
    return f"{n(c['events'])} events, {n(c['rejected'])} rejected, {n(c['merged'])} merged"


CONTRACT = ArtifactContract(
    status=_status,
    tables={DATA.folder: EVENTS, REJECTED.folder: REJECTS, ITEMS: ITEMS_META},
    # A rule counts what it drops only where the config has it.
    laws=(Law(("rows_in",), ("events", "rejected", "merged"), optional_parts=(*RULES, FORGOTTEN)),),
    rows={DATA.folder: "events", REJECTED.folder: "rejects_kept"},
)
