from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedmill.pipeline.report import projection
from embedmill.pipeline.report.items import open_catalogue
from embedmill.pipeline.report.projection import (
    CATEGORIES,
    place_labels,
    principal_components,
    project,
    shorten,
    text_width,
)
from tests.support.report_world import ReportWorld


def test_components_of_a_planted_plane() -> None:
    # Points on a cross in a plane of 5 dimensions: spread 4 along one axis, 1 along another.
    u, v = np.array([0, 3, 0, 4, 0]) / 5, np.array([0, -4, 0, 3, 0]) / 5
    points = np.stack([4 * u, -4 * u, v, -v]) + 7
    xy, variance = principal_components(points)
    np.testing.assert_allclose(np.abs(xy), [[4, 0], [4, 0], [0, 1], [0, 1]], atol=1e-9)
    assert variance == [round(16 / 17, 4), round(1 / 17, 4)]


def test_the_sign_of_a_component_is_that_of_its_largest_loading() -> None:
    line = np.array([[0, -2.0], [0, 0], [0, 2]])
    assert principal_components(line)[0][:, 0].tolist() == pytest.approx([-2, 0, 2])
    assert principal_components(line[::-1])[0][:, 0].tolist() == pytest.approx([2, 0, -2])


@pytest.mark.parametrize(("n", "d"), [(0, 3), (1, 3), (2, 1), (5, 1)])
def test_few_items_or_dimensions(n: int, d: int) -> None:
    xy, variance = principal_components(np.arange(n * d, dtype=float).reshape(n, d))
    assert xy.shape == (n, 2)
    assert np.isfinite(xy).all()
    assert len(variance) == 2
    assert variance[0] == (1.0 if n > 1 else 0.0)


def test_the_map_holds_the_most_frequent_items_within_its_frame(tmp_path: Path) -> None:
    found = project(open_catalogue(ReportWorld(items=60).write(tmp_path)), 40)
    assert [p["row"] for p in found["points"]] == list(range(40))
    for axis in "xy":
        values = [p[axis] for p in found["points"]]
        assert min(values) == 0
        assert max(values) == 1


def test_clusters_lie_apart_on_the_map(tmp_path: Path) -> None:
    points = project(open_catalogue(ReportWorld(clusters=2).write(tmp_path)), 60)["points"]
    sides = [{p["x"] > 0.5 for p in points if p["row"] % 2 == c} for c in (0, 1)]
    assert sorted(map(list, sides)) == [[False], [True]]


def test_categories_with_a_colour_are_the_commonest(tmp_path: Path) -> None:
    world = ReportWorld(items=40, category=lambda i: f"g{min(i, 39 - i) // 2}")
    found = project(open_catalogue(world.write(tmp_path)), 40)
    assert found["categories"] == [f"g{n}" for n in range(CATEGORIES)]
    assert found["points"][0]["category"] == 0
    assert found["points"][2 * CATEGORIES]["category"] == CATEGORIES


def test_without_categories_no_point_has_a_colour(tmp_path: Path) -> None:
    found = project(open_catalogue(ReportWorld(categories=False).write(tmp_path)), 10)
    assert found["categories"] == []
    assert {p["category"] for p in found["points"]} == {None}


Point = st.fixed_dictionaries(
    {
        "x": st.floats(0, 1),
        "y": st.floats(0, 1),
        "title": st.sampled_from(["A", "A film of some length (1990)", "日本語の題名", "M" * 60]),
    }
)


@given(st.lists(Point, max_size=40), st.integers(0, 12), st.floats(0, 1))
def test_labels_never_overlap_at_any_width(
    points: list[dict[str, Any]], most: int, between: float
) -> None:
    widths, height = (300.0, 700.0), 400.0
    labels = place_labels(points, widths, height, most, 20)
    assert len(labels) <= most
    width = widths[0] + between * (widths[1] - widths[0])
    boxes = [projection._label_box(points[one.point], one, width, height) for one in labels]
    for i, a in enumerate(boxes):
        assert a[0] >= -1e-6
        assert a[2] <= width + 1e-6
        for b in boxes[:i]:
            apart = a[2] <= b[0] + 1e-6 or b[2] <= a[0] + 1e-6 or a[3] <= b[1] or b[3] <= a[1]
            assert apart, (a, b)


def test_the_most_frequent_of_two_items_in_one_place_is_labelled_first() -> None:
    points = [{"x": 0.5, "y": 0.5, "title": t} for t in ("first", "second")]
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
