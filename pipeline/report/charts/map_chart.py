"""The map of items as inline SVG."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from markupsafe import Markup

from embedmill.pipeline.report.charts.map_labels import Label, TitledPoint, place_labels
from embedmill.pipeline.report.templating import render
from embedmill.schemas.report import MapPoint

__all__ = ["item_map"]

# Narrowest width of the map's box, its height, and the longest label in characters: one row for
# each size that the container queries of page.css show.
_SIZES = ((300, 460, 18), (460, 560, 20), (700, 620, 24), (1000, 660, 28))
_WIDEST = 1120


def item_map(points: Sequence[MapPoint], labels: int) -> Markup:
    """One circle per item, and labels for each range of widths.

    Screen readers do not see it: the script reads out each item that the arrow keys go to.

    Args:
        points: items, most frequent first.
        labels: most labels to show.
    """
    return render(
        "charts/item_map.html",
        circles=list(_circles(points)),
        label_groups=list(_label_groups(points, labels)),
    )


def _circles(points: Sequence[MapPoint]) -> Iterator[tuple[int, str, float, float, float]]:
    """(item, class, x, y, radius), rare items first: frequent ones lie on top of them."""
    greatest = max((p.count for p in points), default=1)
    for i, p in reversed(list(enumerate(points))):
        kind = "none" if p.category is None else p.category
        radius = 2.2 + 4.0 * math.sqrt(p.count / greatest)
        yield i, f"k{kind}", 100 * p.x, 100 * (1 - p.y), radius


def _label_groups(
    points: Sequence[MapPoint], labels: int
) -> Iterator[list[tuple[float, float, Label]]]:
    """(x, y, label) of the labels for each of `_SIZES`."""
    from_top = [TitledPoint(p.x, 1 - p.y, p.title) for p in points[: 4 * labels]]
    ends = [narrowest for narrowest, *_ in _SIZES[1:]] + [_WIDEST]
    for n, ((narrowest, height, longest), widest) in enumerate(zip(_SIZES, ends, strict=True)):
        most = max(1, labels // 2) if n == 0 and labels else labels
        placed = place_labels(from_top, (narrowest, widest), height, most, longest)
        yield [(100 * from_top[one.point].x, 100 * from_top[one.point].y, one) for one in placed]
