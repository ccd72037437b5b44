from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from embedmill.pipeline.report.collect.item_vectors import open_items
from embedmill.pipeline.report.collect.nearest_items import NEIGHBOURS, WELL_KNOWN, nearest_items
from tests.support.report_world import ReportWorld


def brute_force(world: ReportWorld, row: int, most: int = NEIGHBOURS) -> list[int]:
    unit = world.vectors().astype(np.float64)
    cosines = unit @ unit[row]
    cosines[row] = -np.inf
    return np.argsort(-cosines, kind="stable")[:most].tolist()


def test_neighbours_are_the_planted_cluster_and_equal_a_brute_force(tmp_path: Path) -> None:
    world = ReportWorld()
    found = nearest_items(open_items(world.write(tmp_path)), ())
    assert [one.row for one in found.items] == list(range(WELL_KNOWN))
    for one in found.items:
        rows = [near.row for near in one.neighbours]
        assert rows == brute_force(world, one.row)
        assert {row % world.clusters for row in rows} == {one.row % world.clusters}


def test_items_are_found_by_title_in_any_case_and_by_id(tmp_path: Path) -> None:
    items = open_items(ReportWorld().write(tmp_path))
    asked = ("film NUMBER 7 (1957)", "i3", "Film number 7 (1957)", "no such film")
    found = nearest_items(items, asked)
    assert [one.row for one in found.items] == [7, 3]
    assert found.not_found == ["no such film"]


def test_a_title_of_several_items_means_the_most_frequent(tmp_path: Path) -> None:
    world = ReportWorld(title=lambda i: "Same" if i in (4, 9) else f"T{i}")
    found = nearest_items(open_items(world.write(tmp_path)), ("same",))
    assert [one.row for one in found.items] == [4]


def test_without_metadata_a_title_is_the_id(tmp_path: Path) -> None:
    found = nearest_items(open_items(ReportWorld(metadata=False).write(tmp_path)), ("i5",))
    assert found.items[0].title == "i5"
    assert found.items[0].categories == []


def test_the_last_coordinate_of_a_biased_model_is_no_part_of_the_cosine(tmp_path: Path) -> None:
    world = ReportWorld(rating=True)
    found = nearest_items(open_items(world.write(tmp_path)), ())
    assert [near.row for near in found.items[2].neighbours] == brute_force(world, 2)


def test_a_zero_vector_is_nobodys_neighbour_but_breaks_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = ReportWorld(items=3)
    vectors = np.zeros((3, world.dim), np.float32)
    vectors[1:, 0] = 1
    monkeypatch.setattr(ReportWorld, "vectors", lambda _self: vectors)
    found = nearest_items(open_items(world.write(tmp_path)), ()).items
    assert [near.cosine for near in found[0].neighbours] == [0.0, 0.0]
    assert [near.row for near in found[1].neighbours] == [2, 0]


def test_rows_that_are_not_live_are_nowhere(tmp_path: Path) -> None:
    world = ReportWorld(not_live=frozenset({0, 5, 59}))
    items = open_items(world.write(tmp_path))
    assert items.most_frequent(5).row_N.tolist() == [1, 2, 3, 4, 6]
    found = nearest_items(items, ("i5", "i9"))
    assert found.not_found == ["i5"]
    (one,) = found.items
    near = [n.row for n in one.neighbours]
    expected = [row for row in brute_force(world, 9, most=60) if row not in (0, 5, 59)]
    assert near == expected[:NEIGHBOURS]
