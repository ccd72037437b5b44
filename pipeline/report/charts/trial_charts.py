"""Chart of trials: quality against counted cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from embedmill.pipeline.report.charts.axes import Scale, ticks
from embedmill.pipeline.report.formatting import significant
from embedmill.pipeline.report.templating import render

__all__ = ["TrialPoint", "quality_by_cost"]

_HEIGHT = 220  # pixels


@dataclass(frozen=True)
class TrialPoint:
    """A trial: counted cost of it and all before, its metric, what was tried; `best` of all."""

    cost: float
    value: float
    label: str
    best: bool


def quality_by_cost(metric: str, points: Sequence[TrialPoint]) -> Markup:
    """Points of the trials that have a metric; at least one is needed."""
    rows = ticks(min(p.value for p in points), max(p.value for p in points), 4)
    columns = ticks(0.0, max(p.cost for p in points), 5)
    scale = Scale(columns[0], columns[-1], rows[0], rows[-1])
    return render(
        "charts/quality_by_cost.html",
        label=f"{metric} of trials against the counted cost so far",
        height=_HEIGHT,
        metric=metric,
        rows=[(scale.y(value), significant(value)) for value in rows],
        columns=[(scale.x(value), significant(value)) for value in columns],
        dots=[
            (
                scale.x(p.cost),
                scale.y(p.value),
                "best" if p.best else "",
                f"{p.label}: {metric} {p.value:.4f}",
            )
            for p in points
        ],
    )
