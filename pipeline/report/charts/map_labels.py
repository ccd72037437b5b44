"""Labels of the map of items, placed so that none overlaps another."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Label", "TitledPoint", "place_labels", "shorten", "text_width"]


@dataclass(frozen=True)
class TitledPoint:
    """A point of the map: x from the left and y from the top, in [0, 1], and its title."""

    x: float
    y: float
    title: str


@dataclass(frozen=True)
class Label:
    """A label: number of its point, offset from it in pixels, anchor and text in the SVG."""

    point: int
    dx: float
    dy: float
    anchor: str
    text: str


_FONT = 12.0  # pixels, as in page.css
_ASCENT, _DESCENT, _GAP = 12.0, 3.0, 2.0
# Offsets of the anchor from the point, best first: right, left, above, below, corners.
_OFFSETS = (
    (8.0, 4.0, "start"),
    (-8.0, 4.0, "end"),
    (0.0, -9.0, "middle"),
    (0.0, 18.0, "middle"),
    (7.0, -8.0, "start"),
    (-7.0, -8.0, "end"),
    (7.0, 17.0, "start"),
    (-7.0, 17.0, "end"),
)
_POINT = 5.0  # half the side of the box that a point takes up, in pixels
Box = tuple[float, float, float, float]  # left, top, right, bottom in pixels


def place_labels(
    points: Sequence[TitledPoint],
    widths: tuple[float, float],
    height: float,
    most: int,
    longest: int,
) -> list[Label]:
    """Labels of the most frequent items that fit on the map without overlap.

    Greedy by frequency: a label takes the first of eight positions around its point that overlaps
    neither other labels nor the most frequent points; else the first that overlaps no label; else
    the point gets none. Boxes move along straight lines as the map widens, while text keeps its
    size: what does not overlap at both ends of `widths` does not overlap between them.

    Args:
        points: most frequent first.
        widths: least and greatest width of the map in pixels.
        height: of the map in pixels.
        most: number of labels at most.
        longest: characters of a label at most; longer titles are shortened.
    """
    dots = [tuple(_point_box(p, w, height) for w in widths) for p in points[:most]]
    taken: list[tuple[Box, ...]] = []
    labels: list[Label] = []
    for i, point in enumerate(points[: 4 * most]):
        if len(labels) >= most:
            break
        text = shorten(point.title, longest)
        tried = [Label(i, dx, dy, anchor, text) for dx, dy, anchor in _OFFSETS]
        boxed = [
            (label, tuple(_label_box(point, label, w, height) for w in widths)) for label in tried
        ]
        free = [pair for pair in boxed if _free(pair[1], taken, widths, height)]
        clear = [pair for pair in free if _free(pair[1], dots, widths, height)]
        for label, boxes in (clear or free)[:1]:
            labels.append(label)
            taken.append(boxes)
    return labels


def shorten(text: str, longest: int) -> str:
    """At most `longest` characters on one line; a closing bracket, such as a year, goes first."""
    line = " ".join(text.split())
    if len(line) > longest and line.endswith(")"):
        line = line[: line.rfind("(")].rstrip() or line
    return line if len(line) <= longest else line[: longest - 1].rstrip() + "…"


def text_width(text: str) -> float:
    """Estimated width in pixels at the labels' size; wide East Asian characters count double."""
    return _FONT * sum(_character_width(c) for c in text)


def _character_width(c: str) -> float:
    if unicodedata.combining(c):
        return 0.0
    if unicodedata.east_asian_width(c) in "WF":
        return 1.05
    if c.isupper() or c in "mw@%":
        return 0.74
    return 0.36 if c in "iljtf.,:;'()! |" else 0.6


def _point_box(point: TitledPoint, width: float, height: float) -> Box:
    x, y = point.x * width, point.y * height
    return (x - _POINT, y - _POINT, x + _POINT, y + _POINT)


def _label_box(point: TitledPoint, label: Label, width: float, height: float) -> Box:
    extent = text_width(label.text)
    left = {"start": 0.0, "middle": -extent / 2, "end": -extent}[label.anchor]
    x, y = point.x * width + label.dx + left, point.y * height + label.dy
    return (x - _GAP, y - _ASCENT, x + extent + _GAP, y + _DESCENT)


def _free(
    boxes: tuple[Box, ...],
    taken: Sequence[tuple[Box, ...]],
    widths: tuple[float, float],
    height: float,
) -> bool:
    inside = all(
        b[0] >= 0 and b[1] >= 0 and b[2] <= width and b[3] <= height
        for b, width in zip(boxes, widths, strict=True)
    )
    return inside and not any(
        _overlap(a, b) for other in taken for a, b in zip(boxes, other, strict=True)
    )


def _overlap(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
