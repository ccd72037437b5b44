"""Recall against queries per second as a picture, the way ann-benchmarks draws it: an SVG."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

Points = Sequence[tuple[float, float]]

WIDTH, HEIGHT = 760, 460
LEFT, RIGHT, TOP, BOTTOM = 70, 150, 40, 50
# Okabe and Ito's colours, told apart by the colour-blind, and by their marks.
COLOURS = ("#000000", "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00")
RECALLS = (0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999)
LEAST = 0.5
BEST = 0.9995


def front(points: Points) -> list[tuple[float, float]]:
    """Those that none beats in both, recall rising."""
    kept: list[tuple[float, float]] = []
    for recall, qps in sorted(points, key=lambda p: (-p[0], -p[1])):
        if not kept or qps > kept[-1][1]:
            kept.append((recall, qps))
    return kept[::-1]


def svg(title: str, curves: Mapping[str, Points], x_name: str) -> str:
    """Curves by name. Recall is on a scale of 1 - recall by its logarithm, qps by its own."""
    shown = {n: [p for p in front(c) if p[0] >= LEAST] for n, c in curves.items()}
    every = [qps for points in shown.values() for _, qps in points] or [1.0]
    low, high = math.floor(math.log10(min(every))), math.ceil(math.log10(max(every)))
    high = max(high, low + 1)
    parts = [_frame(title, x_name), *_columns(), *_rows(low, high)]
    for place, (name, points) in enumerate(shown.items()):
        parts.append(_curve(name, [(_x(r), _y(q, low, high)) for r, q in points], place))
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
            f'font-family="sans-serif" font-size="12">',
            f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
            *parts,
            "</svg>\n",
        ]
    )


def _x(recall: float) -> float:
    """Where a recall is: each tenth of what is missing takes as much room as the last."""
    logs = [math.log10(1 - min(value, BEST)) for value in (LEAST, recall, BEST)]
    return LEFT + (WIDTH - LEFT - RIGHT) * (logs[0] - logs[1]) / (logs[0] - logs[2])


def _y(qps: float, low: int, high: int) -> float:
    share = (math.log10(qps) - low) / (high - low)
    return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * share


def _frame(title: str, x_name: str) -> str:
    right, foot = WIDTH - RIGHT, HEIGHT - BOTTOM
    middle = (LEFT + right) / 2
    return (
        f'<text x="{LEFT}" y="22" font-size="15">{escape(title)}</text>'
        f'<text x="{middle}" y="{HEIGHT - 10}" text-anchor="middle">{escape(x_name)}</text>'
        f'<text transform="translate(16 {(TOP + foot) / 2}) rotate(-90)" text-anchor="middle">'
        f"queries per second</text>"
        f'<path d="M{LEFT} {TOP}V{foot}H{right}" fill="none" stroke="#000"/>'
    )


def _columns() -> list[str]:
    foot = HEIGHT - BOTTOM
    return [
        f'<path d="M{_x(r):.1f} {TOP}V{foot}" stroke="#ddd"/>'
        f'<text x="{_x(r):.1f}" y="{foot + 16}" text-anchor="middle">{r:g}</text>'
        for r in RECALLS
    ]


def _rows(low: int, high: int) -> list[str]:
    parts, right = [], WIDTH - RIGHT
    for power in range(low, high + 1):
        for times in range(1, 10) if power < high else (1,):
            y = _y(times * 10.0**power, low, high)
            shade = "#bbb" if times == 1 else "#eee"
            parts.append(f'<path d="M{LEFT} {y:.1f}H{right}" stroke="{shade}"/>')
            if times in (1, 2, 5):
                text = f"{times * 10**power:,}"
                parts.append(
                    f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{text}</text>'
                )
    return parts


def _curve(name: str, at: list[tuple[float, float]], place: int) -> str:
    colour, y = COLOURS[place % len(COLOURS)], TOP + 14 + 20 * place
    path = " ".join(f"{a:.1f},{b:.1f}" for a, b in at)
    marks = "".join(_mark(a, b, colour, place) for a, b in at)
    key = WIDTH - RIGHT + 16
    return (
        f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.5"/>{marks}'
        f'{_mark(key, y - 4, colour, place)}<text x="{key + 12}" y="{y}">{escape(name)}</text>'
    )


def _mark(x: float, y: float, colour: str, place: int) -> str:
    if place % 3 == 0:
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{colour}"/>'
    if place % 3 == 1:
        return f'<rect x="{x - 3:.1f}" y="{y - 3:.1f}" width="6" height="6" fill="{colour}"/>'
    return f'<path d="M{x - 4:.1f} {y + 3:.1f}h8l-4 -7z" fill="{colour}"/>'
