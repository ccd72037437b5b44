"""Search without torch: the same answers as by torch, and lists of excluded rows by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from embedmill.pipeline import score
from embedmill.pipeline.errors import NotFiniteError
from embedmill.pipeline.index import ExcludedRows, exact_search, excluded_rows, exhaustive_search


def excluded(*rows: list[int]) -> ExcludedRows:
    queries = np.repeat(np.arange(len(rows)), [len(each) for each in rows])
    return ExcludedRows.of(
        queries, np.array([row for each in rows for row in each], np.int64), len(rows)
    )


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    n=st.integers(1, 40),
    k=st.integers(1, 45),
    size=st.integers(1, 40),
)
def test_answers_are_those_of_torch(seed: int, n: int, k: int, size: int) -> None:
    """Small integers, so that scores are exact and many are equal."""
    draw = np.random.default_rng(seed)
    query_BD = draw.integers(-2, 3, (5, 3)).astype(np.float32)
    item_ND = draw.integers(-2, 3, (n, 3)).astype(np.float32)
    masks = draw.random((5, n)) < draw.random((5, 1))
    barred = np.flatnonzero(draw.random(n) < 0.2)
    blocks = [(s, item_ND[s : s + size]) for s in range(0, n, size)]
    seen = ExcludedRows.of(*np.nonzero(masks), 5)
    wanted = score.top_k(
        torch.from_numpy(query_BD),
        [(first, torch.from_numpy(block)) for first, block in blocks],
        k,
        score.RowLists(torch.from_numpy(seen.indptr), torch.from_numpy(seen.rows)),
        torch.from_numpy(barred),
    )
    scores, rows = exact_search(query_BD, blocks, k, seen, barred)
    np.testing.assert_array_equal(rows, wanted[1].numpy())
    np.testing.assert_array_equal(scores, wanted[0].numpy())


def test_blocks_of_scores_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = np.random.default_rng(0)
    query_BD, item_ND = (draw.normal(size=(n, 4)).astype(np.float32) for n in (10, 1000))
    whole = exact_search(query_BD, [(0, item_ND)], 7)
    monkeypatch.setattr(exhaustive_search, "_SCORES", 64)
    parts = exact_search(query_BD, [(0, item_ND)], 7)
    np.testing.assert_array_equal(whole[1], parts[1])


def test_no_items_and_not_a_number() -> None:
    scores, rows = exact_search(np.ones((2, 3), np.float32), [], 2)
    assert rows.tolist() == [[-1, -1]] * 2
    assert (scores == -np.inf).all()
    with pytest.raises(NotFiniteError, match="not a number"):
        exact_search(np.ones((1, 1), np.float32), [(0, np.array([[1], [math.nan]], "f4"))], 1)


def test_excluded_rows() -> None:
    made = ExcludedRows.of(np.array([2, 0, 2, 2]), np.array([4, 1, 3, 4]), 4)
    assert made.indptr.tolist() == [0, 1, 1, 3, 3]
    assert made.rows.tolist() == [1, 3, 4]
    assert made.queries().tolist() == [0, 2, 2]
    chosen = made.select(np.array([2, 1, 0, 2]))
    assert chosen.indptr.tolist() == [0, 2, 2, 3, 5]
    assert chosen.rows.tolist() == [3, 4, 1, 3, 4]
    both = made.union(excluded([1], [7], [5], []))
    lists = np.split(both.rows, both.indptr[1:-1])
    assert [each.tolist() for each in lists] == [[1], [7], [3, 4, 5], []]
    assert ExcludedRows.none(2).lengths.tolist() == [0, 0]


def test_widths_leave_enough_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = excluded([], [0, 1, 2], [], list(range(90)))
    found = [(queries.tolist(), width) for queries, width in seen.widths(5, 100)]
    assert found == [([0, 1, 2], 8), ([3], 100)]
    monkeypatch.setattr(excluded_rows, "_MAX_ANSWERS", 16)
    found = [(queries.tolist(), width) for queries, width in seen.widths(5, 100)]
    assert found == [([0, 1], 8), ([2], 8), ([3], 100)]


def test_padding_and_rows_of_other_queries_are_not_contained() -> None:
    row_BK = np.array([[3, -1], [3, 2], [9, 0]])
    assert excluded([2], [3], [0]).contain(row_BK).tolist() == [
        [False, False],
        [True, False],
        [False, True],
    ]
    assert not excluded([], [], []).contain(row_BK).any()
