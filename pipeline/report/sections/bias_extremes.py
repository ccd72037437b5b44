"""Items of highest and lowest bias."""

from __future__ import annotations

from embedmill.pipeline.report.templating import Section, make_section
from embedmill.schemas.report import ReportData

__all__ = ["section"]


def section(data: ReportData) -> Section | None:
    """Two rankings; None for models without biases."""
    bias = data.bias
    if bias is None:
        return None
    named = (("best", "Best", bias.best), ("worst", "Worst", bias.worst))
    rankings = [
        (kind, name, ranked, max(abs(item.bias) for item in ranked) or 1)
        for kind, name, ranked in named
        if ranked
    ]
    return make_section(
        "bias",
        "Best and worst",
        "sections/bias_extremes.html",
        items=bias.items,
        least_count=bias.least_count,
        rankings=rankings,
    )
