"""Recall by how frequent the item is, at the least and the greatest k."""

from __future__ import annotations

from embedmill.pipeline.report.templating import Section, make_section
from embedmill.schemas.report import ReportData

__all__ = ["section"]


def section(data: ReportData) -> Section | None:
    """A row per slice of items; None where there are no test pairs."""
    slices, ks = [one.as_json() for one in data.slices], data.ks
    if not any(one.test_pairs for one in data.slices):
        return None
    key = f"recall@{ks[0]}"
    return make_section(
        "slices",
        "Slices",
        "sections/slices.html",
        ks=list(dict.fromkeys((ks[0], ks[-1]))),
        slices=slices,
        whole=max(one.get(p + key) or 0.0 for one in slices for p in ("", "popularity.")),
    )
