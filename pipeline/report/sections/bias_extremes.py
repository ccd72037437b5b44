"""Items of highest and lowest bias."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from embedmill.pipeline.report.templating import Section, make_section

__all__ = ["section"]


def section(data: Mapping[str, Any]) -> Section | None:
    """Two rankings; None for models without biases."""
    bias = data["bias"]
    if not bias:
        return None
    names = {"best": "Best", "worst": "Worst"}
    rankings = [
        (key, name, bias[key], max(abs(item["bias"]) for item in bias[key]) or 1)
        for key, name in names.items()
        if bias[key]
    ]
    return make_section(
        "bias",
        "Best and worst",
        "sections/bias_extremes.html",
        items=bias["items"],
        least_count=bias["least_count"],
        rankings=rankings,
    )
