"""Sizes of train, validation and test."""

from __future__ import annotations

from embedmill.pipeline.report.sections import counters
from embedmill.pipeline.report.templating import Section, make_section
from embedmill.schemas.report import LogData

__all__ = ["section"]

_NAMES = {"train": "train", "valid": "validation", "test": "test"}
_RULES = {
    "last": "The last events of each user are held out.",
    "time": "All events after a moment in time are held out.",
    "random": "A random share of the events is held out.",
    "given": "The log says which events are held out.",
}


def section(data: LogData) -> Section | None:
    """A bar of the three parts and what is cold in them; None where nothing was split."""
    shards = data.counters.get("shards")
    if shards is None:
        return None
    sizes = {key: int(shards.get(key, 0)) for key in _NAMES}
    others = [(k, v) for k, v in shards.items() if k not in (*_NAMES, "events_in")]
    return make_section(
        "splits",
        "Split",
        "sections/split_sizes.html",
        rule=_RULES[data.split],
        parts=[(key, name, sizes[key]) for key, name in _NAMES.items()],
        total=sum(sizes.values()) or 1,
        counters=counters.rows(others),
    )
