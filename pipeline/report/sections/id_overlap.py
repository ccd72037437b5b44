"""Ids that this run has in common with the run whose vocabulary it continues."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from embedmill.pipeline.report.formatting import count, percent
from embedmill.pipeline.report.sections.events_per_id import SIDES
from embedmill.pipeline.report.templating import Section, make_section

__all__ = ["section"]

_NAMES = {
    "before": "in use in the base run",
    "stayed": "in use in both",
    "gone": "retired in this run",
    "new": "new in this run",
    "back": "retired before, in use again on their old rows",
    "now": "in use in this run",
}


def section(log: Mapping[str, Any]) -> Section | None:
    """A row per kind of id; None where the vocabulary continues no other."""
    overlap = log.get("previous")
    if overlap is None:
        return None
    rows = [[name, *(_cell(overlap[side], key) for side in SIDES)] for key, name in _NAMES.items()]
    return make_section("previous", "Base run", "sections/id_overlap.html", rows=rows)


def _cell(ids: Mapping[str, int], key: str) -> str:
    """A number of ids, with its share of those in use before or now."""
    whole = ids["before"] if key in ("stayed", "gone") else ids["now"]
    share = f" ({percent(ids[key] / whole)})" if key not in ("before", "now") and whole else ""
    return f"{count(ids[key])}{share}"
