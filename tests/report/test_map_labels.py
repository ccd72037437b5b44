from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedmill.pipeline.report.charts import map_labels
from embedmill.pipeline.report.charts.map_labels import (
    TitledPoint,
    place_labels,
    shorten,
    text_width,
)

Point = st.builds(
    TitledPoint,
    x=st.floats(0, 1),
    y=st.floats(0, 1),
    title=st.sampled_from(["A", "A film of some length (1990)", "日本語の題名", "M" * 60]),
)


@given(st.lists(Point, max_size=40), st.integers(0, 12), st.floats(0, 1))
def test_labels_never_overlap_at_any_width(
    points: list[TitledPoint], most: int, between: float
) -> None:
    widths, height = (300.0, 700.0), 400.0
    labels = place_labels(points, widths, height, most, 20)
    assert len(labels) <= most
    width = widths[0] + between * (widths[1] - widths[0])
    boxes = [map_labels._label_box(points[one.point], one, width, height) for one in labels]
    for i, a in enumerate(boxes):
        assert a[0] >= -1e-6
        assert a[2] <= width + 1e-6
        for b in boxes[:i]:
            apart = a[2] <= b[0] + 1e-6 or b[2] <= a[0] + 1e-6 or a[3] <= b[1] or b[3] <= a[1]
            assert apart, (a, b)


def test_the_most_frequent_of_two_items_in_one_place_is_labelled_first() -> None:
    points = [TitledPoint(0.5, 0.5, t) for t in ("first", "second")]
    assert place_labels(points, (300, 400), 300, 1, 20)[0].text == "first"


@pytest.mark.parametrize(
    ("text", "longest", "want"),
    [
        ("Heat (1995)", 20, "Heat (1995)"),
        ("The Empire Strikes Back (1980)", 24, "The Empire Strikes Back"),
        ("A title that goes on and on", 10, "A title t…"),
        ("two\nlines", 20, "two lines"),
        ("(a very long bracket indeed)", 10, "(a very l…"),
    ],
)
def test_shorten(text: str, longest: int, want: str) -> None:
    assert shorten(text, longest) == want


def test_wide_characters_take_more_room() -> None:
    assert text_width("題名") > text_width("ab") > text_width("il") > 0
    assert text_width("e\u0301") == text_width("e")
