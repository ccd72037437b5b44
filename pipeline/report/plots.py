"""Charts of a log: events over time as bars, and counts of ids on logarithmic axes."""

from __future__ import annotations

import math
from collections.abc import Sequence

from embedmill.pipeline.report.svg import Scale, grid, plot, short, ticks
from embedmill.pipeline.report.wording import escape
from embedmill.pipeline.terminal import si

__all__ = ["bars", "decades", "loglog"]

_HEIGHT = 220
_LABELS = 6  # dates below the bars, at most


def bars(values: Sequence[tuple[str, int]], names: tuple[str, str]) -> str:
    """Bars in order, each with what it is called; `names` of the axes: (across, up)."""
    rows = ticks(0.0, max(count for _, count in values), 4)
    place = Scale(0, len(values), rows[0], rows[-1])
    width, parts = 100 / len(values), [grid(place, rows, [si(v) for v in rows])]
    for number, (_, count) in enumerate(values):
        top = place.y(count)
        parts.append(
            f'<rect class="column" x="{place.x(number):.2f}%" y="{top:.2f}%" '
            f'width="{0.86 * width:.2f}%" height="{100 - top:.2f}%"/>'
        )
    every = -(-len(values) // _LABELS)
    for label, number in enumerate(range(0, len(values), every)):
        at = place.x(number)
        if at <= 85:  # or the label would reach past the edge
            # Where there is little room each second one goes.
            kind = "second" if label % 2 or at > 67 else ""
            parts.append(_below(at, values[number][0], "start", kind))
    for number, (name, count) in enumerate(values):
        tip = f"{name}: {count:,} {names[1]}"
        parts.append(
            f'<rect class="hit" x="{place.x(number):.2f}%" width="{width:.2f}%" y="0" '
            f'height="100%" data-tip="{escape(tip)}"/>'
        )
    parts.append(_axes(names))
    most = max(values, key=lambda one: one[1])
    said = f"{names[1]} {names[0]}: from {values[0][0]} to {values[-1][0]}, most at {most[0]}"
    return plot("".join(parts), said, _HEIGHT, "named")


def loglog(
    points: Sequence[tuple[float, float]], names: tuple[str, str], mark: tuple[float, str] | None
) -> str:
    """A falling curve of shares (up) by counts (across), both axes logarithmic.

    Args:
        points: (count, share of 1), counts rising from 1 or more.
        names: of the axes: (across, up).
        mark: a count to pick out by a line down the chart, with what it is called.
    """
    xs, ys = decades(points[0][0], points[-1][0]), decades(points[-1][1], 1.0)
    place = Scale(math.log10(xs[0]), math.log10(xs[-1]), math.log10(ys[0]), math.log10(ys[-1]))
    at = [(place.x(math.log10(x)), place.y(math.log10(y))) for x, y in points]
    parts = [grid(place, [math.log10(y) for y in ys], [f"{100 * y:g} %" for y in ys])]
    parts += [_upright(place.x(math.log10(x)), "grid") for x in xs]
    parts += [_below(place.x(math.log10(x)), si(x), "middle") for x in xs]
    path = " ".join(f"{x:.2f},{y:.2f}" for x, y in at)
    parts.append(
        '<svg viewBox="0 0 100 100" preserveAspectRatio="none" width="100%" height="100%">'
        f'<polyline class="line" points="{path}"/></svg>'
    )
    if mark is not None and xs[0] < mark[0] <= xs[-1]:
        parts.append(_marked(place.x(math.log10(mark[0])), mark[1]))
    for (x, y), (count, share) in zip(at, points, strict=True):
        tip = f"at least {count:,.0f} {names[0]}: {short(100 * share)} % of {names[1]}"
        parts.append(
            f'<circle class="dot" cx="{x:.2f}%" cy="{y:.2f}%" r="3.5" data-tip="{escape(tip)}"/>'
        )
    parts.append(_axes((f"at least so many {names[0]}", f"share of {names[1]}")))
    said = f"share of {names[1]} by {names[0]}, both logarithmic, up to {points[-1][0]:,.0f}"
    return plot("".join(parts), said, _HEIGHT, "named")


def decades(low: float, high: float) -> list[float]:
    """Ticks of a logarithmic axis that covers [low, high], at most about eight.

    Powers of ten, or where there are few of these 2 and 5 times as much as well.
    """
    first, last = math.floor(math.log10(low) + 1e-9), math.ceil(math.log10(high) - 1e-9)
    if last - first > 2:
        step = -(-(last - first) // 7)
        return [10.0**power for power in range(last, first - step, -step)][::-1]
    fine = [m * 10.0**power for power in range(first, last + 2) for m in (1, 2, 5)]
    least = max(v for v in fine if v <= low * (1 + 1e-9))
    most = min(v for v in fine if v >= high * (1 - 1e-9) and v > least)
    return [v for v in fine if least <= v <= most]


def _marked(at: float, name: str) -> str:
    """A dashed line down the chart, called something."""
    anchor, dx = ("end", -7) if at > 50 else ("start", 7)
    return (
        f'<line class="hair" x1="{at:.2f}%" x2="{at:.2f}%" y1="0" y2="100%"/>'
        f'<text class="mark" x="{at:.2f}%" y="100%" dx="{dx}" dy="-8" '
        f'text-anchor="{anchor}">{escape(name)}</text>'
    )


def _upright(at: float, kind: str) -> str:
    return f'<line class="{kind}" x1="{at:.2f}%" x2="{at:.2f}%" y1="0" y2="100%"/>'


def _below(at: float, name: str, anchor: str, kind: str = "") -> str:
    return (
        f'<text class="tick {kind}" x="{at:.2f}%" y="100%" dy="18" text-anchor="{anchor}">'
        f"{escape(name)}</text>"
    )


def _axes(names: tuple[str, str]) -> str:
    """What the axes are called: below at the right, and above at the left."""
    return (
        '<text class="axis" x="100%" y="100%" dy="37" text-anchor="end">'
        f"{escape(names[0])}</text>"
        f'<text class="axis" x="0" y="0" dx="-44" dy="-14">{escape(names[1])}</text>'
    )
