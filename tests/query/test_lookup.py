"""Recommendations for a user and neighbours of an item, by raw id or title."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedmill.pipeline.errors import InputError, MissingArtifactError
from embedmill.pipeline.query import lookup
from embedmill.pipeline.store.run import Run
from tests.support.runs import clusters, finished


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    titles = [f"Film {i}" for i in range(30)]
    return finished(dataclasses.replace(clusters(), titles=titles), tmp_path_factory.mktemp("runs"))


def test_a_user_gets_what_is_left_of_its_cluster_first(run: Run) -> None:
    # User 3 has met items 3, 8 (held out) and 13, 18, 23; of its cluster 28 is left.
    found = lookup.recommend(run, "u3", 5)
    assert found[0].item == "i28"
    assert found[0].row == 28
    assert found[0].score > 0.9 > found[1].score
    assert not {hit.row for hit in found} & {3, 8, 13, 18, 23}


def test_with_seen_items_the_whole_cluster_comes_first(run: Run) -> None:
    found = lookup.recommend(run, "u3", 6, exclude_seen=False)
    assert {hit.row for hit in found} == {3, 8, 13, 18, 23, 28}


def test_more_answers_than_the_catalogue(run: Run) -> None:
    assert len(lookup.recommend(run, "u3", 1000)) == 25
    assert len(lookup.neighbors(run, "i0", 1000)) == 29


def test_neighbours_are_of_the_cluster_and_not_the_item_itself(run: Run) -> None:
    found = lookup.neighbors(run, "i4", 5)
    assert {hit.row for hit in found} == {9, 14, 19, 24, 29}
    assert all(hit.score > 0.9 for hit in found)


def test_an_item_by_its_title(run: Run) -> None:
    assert lookup.neighbors(run, "film 4", 5) == lookup.neighbors(run, "i4", 5)


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ("ilm 4", 'Did you mean "Film 4"'),
        ("Flim 4", 'Did you mean "Film 4"'),
        ("i44", 'no item "i44" among 30'),
    ],
)
def test_an_unknown_item(run: Run, item: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        lookup.neighbors(run, item, 5)


def test_an_unknown_user(run: Run) -> None:
    with pytest.raises(InputError, match=r'no user "u99" among 40\. Did you mean "u9"'):
        lookup.recommend(run, "u99", 5)


@pytest.mark.parametrize("ask", [lookup.recommend, lookup.neighbors])
def test_no_answers_asked_for(run: Run, ask: Any) -> None:
    with pytest.raises(InputError, match="k is 0"):
        ask(run, "u3", 0)


def test_a_user_that_training_never_saw(tmp_path: Path) -> None:
    world = clusters()
    splits = dict(world.splits)
    splits["train"] = [p for p in splits["train"] if p[0] != 7]
    run = finished(dataclasses.replace(world, splits=splits), tmp_path)
    with pytest.raises(InputError, match='events of user "u7" are held out'):
        lookup.recommend(run, "u7", 5)


def test_before_the_index_there_is_nothing_to_ask(tmp_path: Path) -> None:
    run = clusters().store(tmp_path)
    with pytest.raises(MissingArtifactError, match="'index' has not finished"):
        lookup.recommend(run, "u3", 5)


def test_scores_of_a_rating_model_are_ratings(tmp_path: Path) -> None:
    world = dataclasses.replace(
        clusters(users=6, items=5, dim=2),
        user_ND=np.tile(np.array([1, 0], np.float32), (6, 1)),
        item_ND=np.array([[0.1, 0], [0.2, 0], [0.3, 0], [0.4, 0], [0.5, 0]], np.float32),
        user_bias=np.full(6, 0.5, np.float32),
        item_bias=np.array([0, 0, 0, 0, -1], np.float32),
        splits={"train": [(u, 0, 3.0) for u in range(6)]},
        model={"objective": "rating", "similarity": "dot", "mean": 3.0},
    )
    run = finished(world, tmp_path, train={"objective": "rating"})
    found = lookup.recommend(run, "u2", 9)
    assert [hit.item for hit in found] == ["i3", "i2", "i1", "i4"]
    assert [hit.score for hit in found] == pytest.approx([3.9, 3.8, 3.7, 3.0], abs=1e-5)


@pytest.fixture(scope="module")
def aged(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """User 7 and items 28 and 29 are retired."""
    world = dataclasses.replace(clusters(), titles=[f"Film {i}" for i in range(30)])
    splits = {name: [p for p in pairs if p[0] != 7] for name, pairs in world.splits.items()}
    retired = frozenset({"u7", "i28", "i29"})
    return finished(
        dataclasses.replace(world, splits=splits, retired=retired), tmp_path_factory.mktemp("aged")
    )


def test_retired_items_are_never_answered(aged: Run) -> None:
    assert lookup.recommend(aged, "u3", 5)[0].item != "i28"  # it was the only one left
    answers = lookup.recommend(aged, "u3", 1000, exclude_seen=False)
    assert {hit.row for hit in answers} == set(range(28))
    near = lookup.neighbors(aged, "i4", 1000)
    assert {hit.row for hit in near} == set(range(28)) - {4}
    assert {hit.row for hit in near[:4]} == {9, 14, 19, 24}


@pytest.mark.parametrize(
    ("ask", "name", "message"),
    [
        (lookup.recommend, "u7", 'user "u7" is retired: its row is kept'),
        (lookup.neighbors, "i28", 'item "i28" is retired: its row is kept'),
        (lookup.neighbors, "film 28", 'item "i28" is retired: its row is kept'),
    ],
)
def test_a_retired_id_is_told_from_an_unknown_one(
    aged: Run, ask: Any, name: str, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        ask(aged, name, 5)
