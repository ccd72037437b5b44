"""How far vectors have moved since the run that they were aligned to, and quality beside it."""

from __future__ import annotations

from embedmill.pipeline.report.formatting import decimal, percent
from embedmill.pipeline.report.templating import Section, make_section
from embedmill.schemas.report import ReportData

__all__ = ["section"]

_NAMES = {
    "drift.jaccard@10": "overlap of the ten nearest items (Jaccard)",
    "drift.users_overlap@10": "same items among the ten best of a user",
    "drift.distance": "mean distance moved",
    "drift.distance.median": "half of the items moved at most",
    "drift.distance.p90": "90 % of the items moved at most",
    "drift.distance.p99": "99 % of the items moved at most",
    "drift.moved": "share of items that moved farther than 0.1",
}


def section(data: ReportData) -> Section | None:
    """A row per figure; None where there is no earlier run to compare with."""
    rows = [
        [meaning, percent(float(value)) if name == "drift.moved" else decimal(float(value), 3)]
        for name, meaning in _NAMES.items()
        if (value := data.metrics.get(name)) is not None
    ]
    rows += [
        [f"{name} over that of the earlier run, same users", decimal(float(value), 3)]
        for k in data.ks
        for name in (f"recall@{k}", f"ndcg@{k}")
        if (value := data.metrics.get(f"over_earlier.{name}")) is not None
    ]
    return (
        make_section("drift", "Drift", "sections/moved_vectors.html", rows=rows) if rows else None
    )
