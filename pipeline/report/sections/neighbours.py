"""Well-known items with their nearest items by cosine."""

from __future__ import annotations

from embedmill.pipeline.report.templating import Section, make_section
from embedmill.schemas.report import ReportData

__all__ = ["section"]


def section(data: ReportData) -> Section:
    """A card per item."""
    return make_section(
        "neighbours",
        "Neighbours",
        "sections/neighbours.html",
        items=data.neighbours.items,
        not_found=data.neighbours.not_found,
    )
