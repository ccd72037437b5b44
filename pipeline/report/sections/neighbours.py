"""Well-known items with their nearest items by cosine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from embedmill.pipeline.report.templating import Section, make_section

__all__ = ["section"]


def section(data: Mapping[str, Any]) -> Section:
    """A card per item."""
    neighbours = data["neighbours"]
    return make_section(
        "neighbours",
        "Neighbours",
        "sections/neighbours.html",
        items=neighbours["of"],
        not_found=neighbours["not_found"],
    )
