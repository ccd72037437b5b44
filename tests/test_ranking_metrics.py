"""Ranking metrics against hand-worked numbers."""

from __future__ import annotations

import math

import pytest
import torch

from embedmill.pipeline.ranking_metrics import metric_sums
from embedmill.pipeline.score import RowLists


def test_metrics_by_hand() -> None:
    # User 0 wants {1, 2, 7}, is answered 5, 1, 2; user 1 wants {4}, is answered 4, 0;
    # user 2 wants {8} and gets nothing right; user 3 wants nothing.
    rows_Bk = torch.tensor([[5, 1, 2], [4, 0, -1], [1, 2, 3], [1, 2, 3]])
    wanted = RowLists.of(torch.tensor([0, 0, 0, 1, 2]), torch.tensor([1, 2, 7, 4, 8]), 4)
    sums = metric_sums(rows_Bk, wanted, ks=(1, 2, 3))
    d2, d3 = 1 / math.log2(3), 1 / math.log2(4)
    assert sums["recall@1"] == pytest.approx(0 + 1)
    assert sums["recall@2"] == pytest.approx(1 / 3 + 1)
    assert sums["recall@3"] == pytest.approx(2 / 3 + 1)
    assert sums["ndcg@2"] == pytest.approx(d2 / (1 + d2) + 1)
    assert sums["ndcg@3"] == pytest.approx((d2 + d3) / (1 + d2 + d3) + 1)
    assert sums["mrr@1"] == pytest.approx(1)
    assert sums["mrr@3"] == pytest.approx(1 / 2 + 1)
    assert sums["hit_rate@1"] == 1
    assert sums["hit_rate@3"] == 2


def test_a_cut_beyond_the_answer_counts_what_is_there() -> None:
    sums = metric_sums(
        torch.tensor([[0, 1]]),
        RowLists.of(torch.zeros(3, dtype=torch.int64), torch.tensor([1, 5, 6]), 1),
        ks=(100,),
    )
    assert sums["recall@100"] == pytest.approx(1 / 3)
    ideal = 1 + 1 / math.log2(3) + 1 / math.log2(4)
    assert sums["ndcg@100"] == pytest.approx(1 / math.log2(3) / ideal)
