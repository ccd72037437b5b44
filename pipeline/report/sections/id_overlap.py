"""Ids that this run has in common with the run whose vocabulary it continues."""

from __future__ import annotations

from embedmill.pipeline.report.formatting import count, percent
from embedmill.pipeline.report.templating import Section, make_section
from embedmill.schemas.report import IdOverlap, LogDistributions

__all__ = ["section"]

_NAMES = {
    "before": "in use in the base run",
    "stayed": "in use in both",
    "gone": "retired in this run",
    "new": "new in this run",
    "back": "retired before, in use again on their old rows",
    "now": "in use in this run",
}


def section(log: LogDistributions) -> Section | None:
    """A row per kind of id; None where the vocabulary continues no other."""
    if log.base_run is None:
        return None
    sides = (log.base_run.users, log.base_run.items)
    rows = [[name, *(_cell(ids, key) for ids in sides)] for key, name in _NAMES.items()]
    return make_section("base-run", "Base run", "sections/id_overlap.html", rows=rows)


def _cell(ids: IdOverlap, key: str) -> str:
    """A number of ids, with its share of those in use before or now."""
    part: int = getattr(ids, key)
    whole = ids.before if key in ("stayed", "gone") else ids.now
    share = f" ({percent(part / whole)})" if key not in ("before", "now") and whole else ""
    return f"{count(part)}{share}"
