"""Charts as inline SVG: positions in percent and text in pixels, so that one drawing serves
a phone and a desk alike without shrinking its labels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from embedmill.pipeline.report.projection import place_labels
from embedmill.pipeline.report.wording import escape

__all__ = ["Line", "Scale", "curve", "grid", "item_map", "plot", "short", "ticks", "tradeoff"]

_HEIGHT = 220
# Least width of the map's box (the container query of page.css shows the widest that fits),
# its height, and the longest label there.
MAP_WIDTHS = ((300, 460, 18), (460, 560, 20), (700, 620, 24), (1000, 660, 28))
MAP_GREATEST = 1120


@dataclass(frozen=True)
class Line:
    """Points of a curve, x rising."""

    points: Sequence[tuple[float, float]]
    name: str


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """At most about `most` round numbers that cover [low, high]."""
    greatest = max(abs(low), abs(high))
    if high - low <= max(1e-9 * greatest, 1e-12):
        half = 0.5 * greatest if greatest > 1e-9 else 0.5
        low, high = low - half, high + half
    rough = (high - low) / max(most - 1, 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [float(f"{i * step:.12g}") for i in range(first, last + 1)]


def curve(line: Line, *, mark: float | None, marked: str, x_name: str) -> str:
    """One curve over epochs, with the point at x = `mark` picked out and named."""
    if not line.points:
        return ""
    xs, ys = [x for x, _ in line.points], [y for _, y in line.points]
    rows = ticks(min(ys), max(ys), 4)
    left, right = (min(xs), max(xs)) if max(xs) > min(xs) else (xs[0] - 1, xs[0] + 1)
    place = Scale(left, right, rows[0], rows[-1])
    parts = [grid(place, rows), _x_labels(place, xs)]
    path = " ".join(f"{place.x(x):.2f},{place.y(y):.2f}" for x, y in line.points)
    if len(line.points) > 1:
        parts.append(
            '<svg viewBox="0 0 100 100" preserveAspectRatio="none" width="100%" height="100%">'
            f'<polyline class="line" points="{path}"/></svg>'
        )
    else:
        parts.append(_dot(place, xs[0], ys[0], "dot"))
    parts += [_mark(place, x, y, marked) for x, y in line.points if x == mark]
    parts.append(_hits(place, line, x_name))
    said = f"{line.name} by {x_name}: from {short(ys[0])} to {short(ys[-1])}"
    return plot("".join(parts), said, _HEIGHT)


def tradeoff(points: Sequence[tuple[float, float, str, str]], names: tuple[str, str]) -> str:
    """Points (x, y, label, kind) of recall against latency.

    `kind` is "best" for the setting in use, "exact" for exact search, which stands beside
    the line that joins the others in their order, and "" otherwise.
    """
    xs, ys = [p[0] for p in points], [p[1] for p in points]
    rows, columns = ticks(min(ys), max(ys), 4), ticks(0.0, max(xs), 5)
    place = Scale(columns[0], columns[-1], rows[0], rows[-1])
    joined = [p for p in points if p[3] != "exact"]
    path = " ".join(f"{place.x(x):.2f},{place.y(y):.2f}" for x, y, *_ in joined)
    parts = [
        grid(place, rows),
        _x_labels(place, columns),
        '<svg viewBox="0 0 100 100" preserveAspectRatio="none" width="100%" height="100%">'
        f'<polyline class="line thin" points="{path}"/></svg>',
    ]
    for x, y, label, kind in points:
        tip = f"{label}: {names[1]} {y:.4f}, {names[0]} {short(x)}"
        parts.append(
            f'<circle class="dot {kind}" cx="{place.x(x):.2f}%" cy="{place.y(y):.2f}%" r="5" '
            f'data-tip="{escape(tip)}"/>'
        )
    parts += _point_names(place, points)
    return plot("".join(parts), f"{names[1]} against {names[0]}", _HEIGHT)


def _point_names(place: Scale, points: Sequence[tuple[float, float, str, str]]) -> list[str]:
    """Names below their points, left out where the last one stands too near."""
    parts: list[str] = []
    taken: list[tuple[float, float]] = []
    for x, y, label, kind in sorted(points, key=lambda p: p[3] == ""):
        at = (place.x(x), place.y(y))
        if any(abs(at[0] - a) < 9 and abs(at[1] - b) < 12 for a, b in taken):
            continue
        taken.append(at)
        side = ("end", -8, 16) if at[0] > 80 else ("start", 8, 16)
        anchor, dx, dy = ("middle", 0, -10) if kind == "exact" else side
        parts.append(
            f'<text class="tick" x="{at[0]:.2f}%" y="{at[1]:.2f}%" dx="{dx}" dy="{dy}" '
            f'text-anchor="{anchor}">{escape(label)}</text>'
        )
    return parts


def item_map(points: Sequence[dict[str, Any]], labels: int) -> str:
    """The map: one circle per item, its labels once for each range of widths.

    It is hidden from screen readers: its frame is read out, and each item gone to by keys.
    """
    greatest = max((p["count"] for p in points), default=1)
    circles = []
    # Rare items first, so that the frequent ones lie on top of them.
    for i in range(len(points) - 1, -1, -1):
        p = points[i]
        kind = "none" if p["category"] is None else p["category"]
        radius = 2.2 + 4.0 * math.sqrt(p["count"] / greatest)
        circles.append(
            f'<circle class="k{kind}" data-i="{i}" cx="{p["x"] * 100:.2f}%" '
            f'cy="{(1 - p["y"]) * 100:.2f}%" r="{radius:.1f}"/>'
        )
    return (
        '<div class="map-box"><svg class="map" aria-hidden="true" '
        f'width="100%" height="100%"><g class="items">{"".join(circles)}</g>'
        f"{_map_labels(points, labels)}"
        '<circle class="ring" r="9" display="none"/></svg></div>'
    )


def _map_labels(points: Sequence[dict[str, Any]], labels: int) -> str:
    flipped = [p | {"y": 1 - p["y"]} for p in points[: 4 * labels]]
    parts = []
    for n, (least, height, longest) in enumerate(MAP_WIDTHS):
        most = MAP_WIDTHS[n + 1][0] if n + 1 < len(MAP_WIDTHS) else MAP_GREATEST
        few = max(1, labels // 2) if n == 0 and labels else labels
        placed = place_labels(flipped, (least, most), height, few, longest)
        texts = "".join(
            f'<text x="{flipped[one.point]["x"] * 100:.2f}%" '
            f'y="{flipped[one.point]["y"] * 100:.2f}%" dx="{one.dx}" dy="{one.dy}" '
            f'text-anchor="{one.anchor}">{escape(one.text)}</text>'
            for one in placed
        )
        parts.append(f'<g class="labels w{n}" aria-hidden="true">{texts}</g>')
    return "".join(parts)


@dataclass(frozen=True)
class Scale:
    """Values to percent of the plot, y upwards."""

    left: float
    right: float
    bottom: float
    top: float

    def x(self, value: float) -> float:
        """From the left."""
        return 100 * (value - self.left) / (self.right - self.left)

    def y(self, value: float) -> float:
        """From the top."""
        return 100 - 100 * (value - self.bottom) / (self.top - self.bottom)


def plot(inner: str, said: str, height: int, kind: str = "") -> str:
    """A chart's frame; `said` is what screen readers tell of it."""
    return (
        f'<div class="plot {kind}"><svg role="img" aria-label="{escape(said)}" width="100%" '
        f'height="{height}">{inner}</svg></div>'
    )


def grid(place: Scale, rows: Sequence[float], names: Sequence[str] = ()) -> str:
    """A line across for each row, with its value, or its name, at the left."""
    said = names or [short(v) for v in rows]
    return "".join(
        f'<line class="grid" x1="0" x2="100%" y1="{place.y(v):.2f}%" y2="{place.y(v):.2f}%"/>'
        f'<text class="tick" x="0" y="{place.y(v):.2f}%" dx="-8" dy="4" text-anchor="end">'
        f"{escape(name)}</text>"
        for v, name in zip(rows, said, strict=True)
    )


def _x_labels(place: Scale, values: Sequence[float]) -> str:
    every = max(1, math.ceil(len(values) / 8))
    return "".join(
        f'<text class="tick" x="{place.x(v):.2f}%" y="100%" dy="18" text-anchor="middle">'
        f"{short(v)}</text>"
        for v in list(values)[::every]
    )


def _dot(place: Scale, x: float, y: float, kind: str) -> str:
    return f'<circle class="{kind}" cx="{place.x(x):.2f}%" cy="{place.y(y):.2f}%" r="4.5"/>'


def _mark(place: Scale, x: float, y: float, marked: str) -> str:
    """A picked point; its name stands at the far end of a hairline, away from the curve."""
    across, down = f"{place.x(x):.2f}%", place.y(y)
    far = 100 if down < 50 else 0
    anchor, dx = ("end", -7) if place.x(x) > 50 else ("start", 7)
    named = (
        f'<line class="hair" x1="{across}" x2="{across}" y1="{down:.2f}%" y2="{far}%"/>'
        f'<text class="mark" x="{across}" y="{far}%" dx="{dx}" dy="{-8 if far else 12}" '
        f'text-anchor="{anchor}">{escape(marked)}</text>'
        if marked
        else ""
    )
    return named + _dot(place, x, y, "dot best")


def _hits(place: Scale, line: Line, x_name: str) -> str:
    """Invisible columns that carry what a pointer over them is told."""
    width = 100 / max(len(line.points) - 1, 1)
    parts = []
    for x, y in line.points:
        left = max(0.0, place.x(x) - width / 2)
        right = min(100.0, place.x(x) + width / 2)
        tip = f"{x_name} {short(x)}: {short(y)}"
        parts.append(
            f'<rect class="hit" x="{left:.2f}%" width="{right - left:.2f}%" y="0" height="100%" '
            f'data-tip="{escape(tip)}"/>'
        )
    return "".join(parts)


def short(value: float) -> str:
    """A value in four digits."""
    text = f"{value:.4g}"
    return text if "e" not in text or abs(value) < 1 else f"{value:,.0f}"
