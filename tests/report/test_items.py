from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedmill.pipeline.report import items
from embedmill.pipeline.report.items import (
    EXTREMES,
    NEIGHBOURS,
    WELL_KNOWN,
    extremes,
    neighbours,
    open_catalogue,
)
from embedmill.pipeline.store.run import Run
from tests.support.report_world import ReportWorld

Built = Callable[..., Run]


def brute_force(world: ReportWorld, row: int, most: int = NEIGHBOURS) -> list[int]:
    unit = world.vectors().astype(np.float64)
    cosines = unit @ unit[row]
    cosines[row] = -np.inf
    return np.argsort(-cosines, kind="stable")[:most].tolist()


def test_neighbours_are_the_planted_cluster_and_equal_a_brute_force(tmp_path: Path) -> None:
    world = ReportWorld()
    found = neighbours(open_catalogue(world.write(tmp_path)), ())
    assert [one["row"] for one in found["of"]] == list(range(WELL_KNOWN))
    for one in found["of"]:
        rows = [near["row"] for near in one["near"]]
        assert rows == brute_force(world, one["row"])
        assert {row % world.clusters for row in rows} == {one["row"] % world.clusters}


def test_blocks_of_any_size_give_the_same_neighbours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalogue = open_catalogue(ReportWorld(rating=True).write(tmp_path))
    whole = neighbours(catalogue, ()), extremes(catalogue)
    monkeypatch.setattr(items, "_BLOCK_ROWS", 7)
    assert (neighbours(catalogue, ()), extremes(catalogue)) == whole


def test_items_are_found_by_title_in_any_case_and_by_id(tmp_path: Path) -> None:
    catalogue = open_catalogue(ReportWorld().write(tmp_path))
    asked = ("film NUMBER 7 (1957)", "i3", "Film number 7 (1957)", "no such film")
    found = neighbours(catalogue, asked)
    assert [one["row"] for one in found["of"]] == [7, 3]
    assert found["not_found"] == ["no such film"]


def test_a_title_of_several_items_means_the_most_frequent(tmp_path: Path) -> None:
    world = ReportWorld(title=lambda i: "Same" if i in (4, 9) else f"T{i}")
    found = neighbours(open_catalogue(world.write(tmp_path)), ("same",))
    assert [one["row"] for one in found["of"]] == [4]


def test_without_metadata_a_title_is_the_id(tmp_path: Path) -> None:
    found = neighbours(open_catalogue(ReportWorld(metadata=False).write(tmp_path)), ("i5",))
    assert found["of"][0]["title"] == "i5"
    assert found["of"][0]["categories"] == []


def test_the_last_coordinate_of_a_biased_model_is_no_part_of_the_cosine(tmp_path: Path) -> None:
    world = ReportWorld(rating=True)
    found = neighbours(open_catalogue(world.write(tmp_path)), ())
    assert [near["row"] for near in found["of"][2]["near"]] == brute_force(world, 2)


def test_a_zero_vector_is_nobodys_neighbour_but_breaks_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = ReportWorld(items=3)
    vectors = np.zeros((3, world.dim), np.float32)
    vectors[1:, 0] = 1
    monkeypatch.setattr(ReportWorld, "vectors", lambda _self: vectors)
    found = neighbours(open_catalogue(world.write(tmp_path)), ())["of"]
    assert [near["cosine"] for near in found[0]["near"]] == [0.0, 0.0]
    assert [near["row"] for near in found[1]["near"]] == [2, 0]


def test_extremes_rank_items_with_enough_events_by_bias(tmp_path: Path) -> None:
    world = ReportWorld(items=60, rating=True)
    found = extremes(open_catalogue(world.write(tmp_path)))
    assert found is not None
    enough = [i for i in range(60) if world.count(i) >= found["least_count"]]
    assert found["items"] == len(enough) >= 2 * EXTREMES
    # The bias of the world rises with the row.
    assert [one["row"] for one in found["best"]] == enough[::-1][:EXTREMES]
    assert [one["row"] for one in found["worst"]] == enough[:EXTREMES]


def test_extremes_of_few_items_share_none(tmp_path: Path) -> None:
    found = extremes(open_catalogue(ReportWorld(items=5, rating=True).write(tmp_path)))
    assert found is not None
    assert [one["row"] for one in found["best"]] == [4, 3]
    assert [one["row"] for one in found["worst"]] == [0, 1]


def test_models_without_biases_have_no_extremes(tmp_path: Path) -> None:
    assert extremes(open_catalogue(ReportWorld().write(tmp_path))) is None


def test_the_bias_of_a_softmax_is_no_judgement(tmp_path: Path) -> None:
    """It follows how frequent an item is: neither best nor worst."""
    assert extremes(open_catalogue(ReportWorld(softmax_bias=True).write(tmp_path))) is None


def test_only_vectors_of_the_most_frequent_items_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalogue = open_catalogue(ReportWorld().write(tmp_path))
    opened: list[str] = []
    real = type(catalogue.export).batches

    def noting(self: Any, path: str, rows: int, columns: list[str]) -> Any:
        if "vector" in columns:
            opened.append(path)
        return real(self, path, rows, columns)

    monkeypatch.setattr(type(catalogue.export), "batches", noting)
    assert catalogue.first(10).rows.tolist() == list(range(10))
    assert opened == ["items/part-00000.parquet"]


def test_rows_that_are_not_live_are_nowhere(tmp_path: Path) -> None:
    world = ReportWorld(not_live=frozenset({0, 5, 59}))
    catalogue = open_catalogue(world.write(tmp_path))
    assert catalogue.first(5).rows.tolist() == [1, 2, 3, 4, 6]
    found = neighbours(catalogue, ("i5", "i9"))
    assert found["not_found"] == ["i5"]
    (one,) = found["of"]
    near = [n["row"] for n in one["near"]]
    expected = [row for row in brute_force(world, 9, most=60) if row not in (0, 5, 59)]
    assert near == expected[:NEIGHBOURS]


def test_the_most_frequent_come_first_whatever_their_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A vocabulary that continues another is in no order of counts."""
    monkeypatch.setattr(ReportWorld, "count", lambda _self, i: 1 + i % 7)
    world = ReportWorld(title=lambda i: "Same" if i in (4, 6) else f"T{i}")
    catalogue = open_catalogue(world.write(tmp_path))
    assert catalogue.first(9).rows.tolist() == [6, 13, 20, 27, 34, 41, 48, 55, 5]
    assert neighbours(catalogue, ("same",))["of"][0]["row"] == 6
