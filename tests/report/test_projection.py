from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from embedmill.pipeline.report.collect.item_vectors import open_items
from embedmill.pipeline.report.collect.projection import CATEGORIES, principal_components, project
from tests.support.report_world import ReportWorld


def test_components_of_a_planted_plane() -> None:
    # Points on a cross in a plane of 5 dimensions: spread 4 along one axis, 1 along another.
    u, v = np.array([0, 3, 0, 4, 0]) / 5, np.array([0, -4, 0, 3, 0]) / 5
    points = np.stack([4 * u, -4 * u, v, -v]) + 7
    xy, variance = principal_components(points)
    np.testing.assert_allclose(np.abs(xy), [[4, 0], [4, 0], [0, 1], [0, 1]], atol=1e-9)
    assert variance == (round(16 / 17, 4), round(1 / 17, 4))


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
    found = project(open_items(ReportWorld(items=60).write(tmp_path)), 40)
    assert [p.row for p in found.points] == list(range(40))
    for axis in "xy":
        values = [getattr(p, axis) for p in found.points]
        assert min(values) == 0
        assert max(values) == 1


def test_clusters_lie_apart_on_the_map(tmp_path: Path) -> None:
    points = project(open_items(ReportWorld(clusters=2).write(tmp_path)), 60).points
    sides = [{p.x > 0.5 for p in points if p.row % 2 == c} for c in (0, 1)]
    assert sorted(map(list, sides)) == [[False], [True]]


def test_categories_with_a_colour_are_the_commonest(tmp_path: Path) -> None:
    world = ReportWorld(items=40, category=lambda i: f"g{min(i, 39 - i) // 2}")
    found = project(open_items(world.write(tmp_path)), 40)
    assert found.categories == [f"g{n}" for n in range(CATEGORIES)]
    assert found.points[0].category == 0
    assert found.points[2 * CATEGORIES].category == CATEGORIES


def test_without_categories_no_point_has_a_colour(tmp_path: Path) -> None:
    found = project(open_items(ReportWorld(categories=False).write(tmp_path)), 10)
    assert found.categories == []
    assert {p.category for p in found.points} == {None}
