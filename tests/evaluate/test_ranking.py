"""Popularity and slices by hand."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from embedmill.pipeline.evaluate.ranking import Popularity, Slices
from embedmill.pipeline.score import RowLists, top_k


def lists(*rows: list[int]) -> RowLists:
    users = torch.tensor([b for b, each in enumerate(rows) for _ in each], dtype=torch.int64)
    items = torch.tensor([row for each in rows for row in each], dtype=torch.int64)
    return RowLists.of(users, items, len(rows))


def test_popularity_by_hand() -> None:
    popular = Popularity(np.array([5, 9, 5, 0]), np.ones(4, bool))
    assert popular.top(2, lists([], [1], [1, 0, 2, 3])).tolist() == [[1, 0], [0, 2], [-1, -1]]
    assert popular.top(6, lists([1])).tolist() == [[0, 2, 3, -1, -1, -1]]


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**31), n=st.integers(1, 30), k=st.integers(1, 35))
def test_popularity_is_top_k_of_counts(seed: int, n: int, k: int) -> None:
    draw = np.random.default_rng(seed)
    count_N = draw.integers(0, 5, n)
    pairs = torch.from_numpy(draw.random((4, n)) < 0.4).nonzero()
    seen = RowLists.of(pairs[:, 0], pairs[:, 1], 4)
    column = torch.from_numpy(count_N).float()[:, None]
    _, rows = top_k(torch.ones(4, 1), [(0, column)], k, seen)
    assert torch.equal(Popularity(count_N, np.ones(len(count_N), bool)).top(k, seen), rows)


def test_slices_by_hand() -> None:
    cut = Slices.cut(np.array([1, 6, 1, 3, 1, 0]), np.ones(6, bool), 3)
    # Twelve events: the item with 6, then (from the sixth on) 3 and 1, then the last.
    assert cut.names == ("head", "middle", "tail", "never trained on")
    assert cut.of_item.tolist() == [2, 0, 2, 1, 2, 3]
    assert cut.items.tolist() == [1, 1, 3, 1]
    assert cut.train_events.tolist() == [6, 3, 3, 0]
    assert Slices.cut(np.array([1, 1]), np.ones(2, bool), 2).names == (
        "1 of 2",
        "2 of 2",
        "never trained on",
    )
