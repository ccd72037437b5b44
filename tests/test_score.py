"""Exact top-k against hand-worked numbers and brute force."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from embedmill.pipeline import score
from embedmill.pipeline.errors import NotFiniteError
from embedmill.pipeline.score import RowLists, hits, top_k


def lists(*rows: list[int]) -> RowLists:
    pairs = [(b, row) for b, each in enumerate(rows) for row in each]
    users = torch.tensor([p[0] for p in pairs], dtype=torch.int64)
    items = torch.tensor([p[1] for p in pairs], dtype=torch.int64)
    return RowLists.of(users, items, len(rows))


def blocks(item_ND: torch.Tensor, size: int) -> list[tuple[int, torch.Tensor]]:
    return [(s, item_ND[s : s + size]) for s in range(0, len(item_ND), size)]


def test_top_k_by_hand() -> None:
    user_BD = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    item_ND = torch.tensor([[1.0, 5.0], [3.0, 1.0], [2.0, -1.0]])
    scores, rows = top_k(user_BD, [(0, item_ND)], 2)
    assert rows.tolist() == [[1, 2], [0, 1]]
    assert scores.tolist() == [[3.0, 2.0], [10.0, 2.0]]


def test_equal_scores_go_to_the_lower_row_across_and_within_blocks() -> None:
    item_ND = torch.ones(100, 1)
    item_ND[70] = 2.0
    for size in (1, 7, 100):
        _, rows = top_k(torch.ones(3, 1), blocks(item_ND, size), 5)
        assert rows.tolist() == [[70, 0, 1, 2, 3]] * 3


def test_more_answers_than_items_are_padded() -> None:
    scores, rows = top_k(torch.ones(1, 1), [(0, torch.tensor([[1.0], [2.0]]))], 4)
    assert rows.tolist() == [[1, 0, -1, -1]]
    assert scores[0, 2:].tolist() == [-math.inf, -math.inf]


def test_seen_items_are_never_answered() -> None:
    item_ND = torch.arange(6.0)[:, None]
    _, rows = top_k(torch.ones(2, 1), blocks(item_ND, 2), 3, seen=lists([5, 3], list(range(6))))
    assert rows.tolist() == [[4, 2, 1], [-1, -1, -1]]


def test_barred_rows_are_answered_to_nobody() -> None:
    item_ND = torch.arange(6.0)[:, None]
    barred = torch.tensor([0, 3, 5])
    for size in (1, 2, 6):
        _, rows = top_k(torch.ones(2, 1), blocks(item_ND, size), 3, lists([4], []), barred)
        assert rows.tolist() == [[2, 1, -1], [4, 2, 1]]


def test_no_items_at_all() -> None:
    scores, rows = top_k(torch.ones(2, 3), [], 2)
    assert rows.tolist() == [[-1, -1], [-1, -1]]
    assert scores.shape == (2, 2)


def test_not_a_number_is_an_error() -> None:
    with pytest.raises(NotFiniteError, match="not a number"):
        top_k(torch.ones(1, 1), [(0, torch.tensor([[1.0], [math.nan], [0.5]]))], 1)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    n=st.integers(1, 40),
    k=st.integers(1, 45),
    size=st.integers(1, 40),
    levels=st.integers(1, 6),
)
def test_equals_sorting_everything(seed: int, n: int, k: int, size: int, levels: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    # Few distinct values make many ties.
    item_ND = torch.randint(-levels, levels, (n, 2), generator=draw).float()
    user_BD = torch.randint(-2, 3, (5, 2), generator=draw).float()
    seen_BN = torch.rand(5, n, generator=draw) < 0.3
    pairs = seen_BN.nonzero()
    seen = RowLists.of(pairs[:, 0], pairs[:, 1], 5)

    scores, rows = top_k(user_BD, blocks(item_ND, size), k, seen)

    full = (user_BD @ item_ND.T).masked_fill(seen_BN, -math.inf)
    for b in range(5):
        want = sorted(range(n), key=lambda i, b=b: (-full[b, i].item(), i))
        want = [i for i in want if not seen_BN[b, i]][:k]
        assert [r for r in rows[b].tolist() if r >= 0] == want
        assert scores[b, : len(want)].tolist() == full[b, want].tolist()


def test_the_block_of_scores_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    item_ND = torch.randn(1000, 4, generator=torch.Generator().manual_seed(0))
    user_BD = torch.randn(10, 4, generator=torch.Generator().manual_seed(1))
    whole = top_k(user_BD, [(0, item_ND)], 7)
    monkeypatch.setattr(score, "_SCORES", 64)  # six items at a time
    parts = top_k(user_BD, [(0, item_ND)], 7)
    assert torch.equal(whole[1], parts[1])


def test_row_lists() -> None:
    made = RowLists.of(torch.tensor([2, 0, 2, 2]), torch.tensor([4, 1, 3, 4]), 4)
    assert made.indptr.tolist() == [0, 1, 1, 3, 3]
    assert made.rows.tolist() == [1, 3, 4]
    assert made.users().tolist() == [0, 2, 2]
    chosen = made.select(torch.tensor([2, 1, 0, 2]))
    assert chosen.indptr.tolist() == [0, 2, 2, 3, 5]
    assert chosen.rows.tolist() == [3, 4, 1, 3, 4]
    empty = RowLists.of(torch.empty(0, dtype=torch.int64), torch.empty(0, dtype=torch.int64), 2)
    assert empty.lengths.tolist() == [0, 0]


def test_widths_hold_what_a_user_has_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = lists([], [0, 1, 2], [], list(range(90)))
    found = [(users.tolist(), width) for users, width in score.widths(5, seen, 100)]
    assert found == [([0, 1, 2], 8), ([3], 100)]
    monkeypatch.setattr(score, "_RESULTS", 16)
    found = [(users.tolist(), width) for users, width in score.widths(5, seen, 100)]
    assert found == [([0, 1], 8), ([2], 8), ([3], 100)]


def test_hits_never_match_padding_or_another_user() -> None:
    rows_Bk = torch.tensor([[3, -1], [3, 2], [9, 0]])
    assert hits(rows_Bk, lists([2], [3], [0])).tolist() == [
        [False, False],
        [True, False],
        [False, True],
    ]
    assert not hits(rows_Bk, lists([], [], [])).any()
