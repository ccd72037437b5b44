"""The map of items with its legend, its search box and the line that reads items out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from embedmill.pipeline.report.charts.map_chart import item_map
from embedmill.pipeline.report.collect.projection import CATEGORIES
from embedmill.pipeline.report.templating import Section, make_section
from embedmill.schemas.report import MapPoint, ReportData

__all__ = ["section"]


def section(data: ReportData, labels: int) -> Section:
    """The most frequent items on their first two principal components."""
    points = data.map.points
    return make_section(
        "map",
        "Map",
        "sections/item_map.html",
        size=len(points),
        all_items=len(points) == data.counters["vocab"]["items_live"],
        variance=data.map.variance,
        legend=list(_legend(points, data.map.categories)),
        chart=item_map(points, labels) if len(points) > 1 else "",
        # What the script needs of each item: title, events, categories.
        items=[[p.title[:200], p.count, " · ".join(p.categories)[:120]] for p in points],
    )


def _legend(points: Sequence[MapPoint], names: Sequence[str]) -> Iterator[tuple[int, str, int]]:
    """(colour, category, items) of the categories on the map; none where items have none."""
    if names:
        for colour, name in [*enumerate(names), (CATEGORIES, "other or none")]:
            size = sum(p.category == colour for p in points)
            if size:
                yield colour, name, size
