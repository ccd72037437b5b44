"""Charts of a log: events over time as bars, and events per id on logarithmic axes."""

from __future__ import annotations

import math
from collections.abc import Sequence

from markupsafe import Markup

from embedmill.pipeline.report.charts.axes import Scale, log_ticks, ticks
from embedmill.pipeline.report.formatting import significant
from embedmill.pipeline.report.templating import render
from embedmill.pipeline.terminal import si

__all__ = ["by_day", "per_id"]

_HEIGHT = 220  # pixels
_DATES = 6  # below the bars, at most


def by_day(bars: Sequence[tuple[str, int]], span: str) -> Markup:
    """Events over time as bars.

    Args:
        bars: (first day, events), in order.
        span: what a bar covers: "day", "week".
    """
    rows = ticks(0.0, max(count for _, count in bars), 4)
    scale, width = Scale(0, len(bars), rows[0], rows[-1]), 100 / len(bars)
    most = max(bars, key=lambda bar: bar[1])
    x_name = f"first day of each {span}, UTC"
    return render(
        "charts/by_day.html",
        label=f"events {x_name}: from {bars[0][0]} to {bars[-1][0]}, most at {most[0]}",
        height=_HEIGHT,
        rows=[(scale.y(v), si(v)) for v in rows],
        bars=[(scale.x(number), scale.y(count)) for number, (_, count) in enumerate(bars)],
        width=width,
        dates=_dates(scale, [day for day, _ in bars]),
        tips=[f"{day}: {count:,} events" for day, count in bars],
        x_name=x_name,
    )


def _dates(scale: Scale, days: Sequence[str]) -> list[tuple[float, str, str]]:
    """(x, day, class) of dates below the bars; those of class "second" go on narrow screens."""
    dates = []
    every = -(-len(days) // _DATES)
    for label, number in enumerate(range(0, len(days), every)):
        x = scale.x(number)
        if x <= 85:  # or the label would reach past the edge
            dates.append((x, days[number], "second" if label % 2 or x > 67 else ""))
    return dates


def per_id(
    points: Sequence[tuple[float, float]], side: str, minimum: float, minimum_label: str
) -> Markup:
    """Share of ids (up) that have at least so many events (across), both axes logarithmic.

    Args:
        points: (events, share of 1), events rising from 1 or more.
        side: "users" or "items".
        minimum: events that are marked by a line down the chart, where it shows them.
        minimum_label: text beside that line.
    """
    xs, ys = log_ticks(points[0][0], points[-1][0]), log_ticks(points[-1][1], 1.0)
    scale = Scale(math.log10(xs[0]), math.log10(xs[-1]), math.log10(ys[0]), math.log10(ys[-1]))
    marked = xs[0] < minimum <= xs[-1]
    return render(
        "charts/per_id.html",
        label=f"share of {side} by events, both logarithmic, up to {points[-1][0]:,.0f}",
        height=_HEIGHT,
        rows=[(scale.y(math.log10(y)), f"{100 * y:g} %") for y in ys],
        columns=[(scale.x(math.log10(x)), si(x)) for x in xs],
        points=[(scale.x(math.log10(x)), scale.y(math.log10(y))) for x, y in points],
        tips=[f"at least {x:,.0f} events: {significant(100 * y)} % of {side}" for x, y in points],
        minimum=scale.x(math.log10(minimum)) if marked else None,
        minimum_label=minimum_label,
        y_name=f"share of {side}",
    )
