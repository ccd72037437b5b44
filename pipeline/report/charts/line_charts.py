"""Charts of training and of the index.

Positions are in percent of the chart's box and text is in pixels, so that one drawing serves
narrow and wide screens without shrinking its labels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from embedmill.pipeline.report.charts.axes import Scale, ticks
from embedmill.pipeline.report.formatting import significant
from embedmill.pipeline.report.templating import render

__all__ = ["IndexPoint", "by_epoch", "recall_by_latency"]

_HEIGHT = 220  # pixels
_X_LABELS = 8  # at most


@dataclass(frozen=True)
class IndexPoint:
    """A setting of the index: milliseconds per query, recall@10, and what it is called.

    `role` is "best" for the setting in use, "exact" for exact search and "" for any other.
    """

    milliseconds: float
    recall: float
    label: str
    role: str = ""


def by_epoch(
    name: str, points: Sequence[tuple[float, float]], kept: float | None, kept_label: str
) -> Markup:
    """A metric over epochs; nothing where there are no points.

    Args:
        name: of the metric.
        points: (epoch, value), epochs rising.
        kept: epoch whose point is marked.
        kept_label: text beside that point; "" for none.
    """
    if not points:
        return Markup()
    xs, ys = [x for x, _ in points], [y for _, y in points]
    rows = ticks(min(ys), max(ys), 4)
    left, right = (min(xs), max(xs)) if max(xs) > min(xs) else (xs[0] - 1, xs[0] + 1)
    scale = Scale(left, right, rows[0], rows[-1])
    return render(
        "charts/by_epoch.html",
        label=f"{name} by epoch: from {significant(ys[0])} to {significant(ys[-1])}",
        height=_HEIGHT,
        rows=_rows(scale, rows),
        columns=_columns(scale, xs),
        points=[(scale.x(x), scale.y(y)) for x, y in points],
        kept=[(scale.x(x), scale.y(y)) for x, y in points if x == kept],
        kept_label=kept_label,
        hover=_hover(scale, points),
    )


def _hover(scale: Scale, points: Sequence[tuple[float, float]]) -> list[tuple[float, float, str]]:
    """(left, width, text) of the invisible columns that show a point's value to a pointer."""
    width = 100 / max(len(points) - 1, 1)
    columns = []
    for x, y in points:
        left = max(0.0, scale.x(x) - width / 2)
        right = min(100.0, scale.x(x) + width / 2)
        columns.append((left, right - left, f"epoch {significant(x)}: {significant(y)}"))
    return columns


def recall_by_latency(points: Sequence[IndexPoint]) -> Markup:
    """Recall@10 over milliseconds per query.

    A line joins the settings of the index in their order; exact search stands beside it.
    """
    xs, ys = [p.milliseconds for p in points], [p.recall for p in points]
    rows, columns = ticks(min(ys), max(ys), 4), ticks(0.0, max(xs), 5)
    scale = Scale(columns[0], columns[-1], rows[0], rows[-1])
    at = [(scale.x(p.milliseconds), scale.y(p.recall)) for p in points]
    tips = [
        f"{p.label}: recall@10 {p.recall:.4f}, ms per query {significant(p.milliseconds)}"
        for p in points
    ]
    return render(
        "charts/recall_by_latency.html",
        label="recall@10 against ms per query",
        height=_HEIGHT,
        rows=_rows(scale, rows),
        columns=_columns(scale, columns),
        line=[xy for xy, p in zip(at, points, strict=True) if p.role != "exact"],
        dots=[(*xy, p.role, tip) for xy, p, tip in zip(at, points, tips, strict=True)],
        names=_point_names(scale, points),
    )


def _point_names(
    scale: Scale, points: Sequence[IndexPoint]
) -> list[tuple[float, float, int, int, str, str]]:
    """(x, y, dx, dy, anchor, text) of names beside their points.

    A name is left out where another one stands too near; marked points go first.
    """
    names: list[tuple[float, float, int, int, str, str]] = []
    for point in sorted(points, key=lambda p: p.role == ""):
        x, y = scale.x(point.milliseconds), scale.y(point.recall)
        if any(abs(x - name[0]) < 9 and abs(y - name[1]) < 12 for name in names):
            continue
        anchor, dx, dy = ("end", -8, 16) if x > 80 else ("start", 8, 16)
        if point.role == "exact":
            anchor, dx, dy = "middle", 0, -10
        names.append((x, y, dx, dy, anchor, point.label))
    return names


def _rows(scale: Scale, values: Sequence[float]) -> list[tuple[float, str]]:
    """(y, text) of grid lines."""
    return [(scale.y(v), significant(v)) for v in values]


def _columns(scale: Scale, values: Sequence[float]) -> list[tuple[float, str]]:
    """(x, text) of labels below the chart, as many as there is room for."""
    every = max(1, math.ceil(len(values) / _X_LABELS))
    return [(scale.x(v), significant(v)) for v in values[::every]]
