"""Ranking metrics from the ranks at which relevant items stand.

Legend: B users, k results of a user, M hits.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from embedmill.pipeline.score import RowLists, hits

__all__ = ["METRICS", "PRECISION_METRICS", "hit_sums", "metric_sums", "precision_sums"]

METRICS = ("recall", "ndcg", "mrr", "hit_rate")
PRECISION_METRICS = ("map", "r_precision")


def metric_sums(rows_Bk: Tensor, relevant: RowLists, ks: Sequence[int]) -> dict[str, float]:
    """Sums over users of the ranking metrics; divide by the number of users for means.

    Recall@k is hits over all relevant items, as in NGCF and LightGCN; NDCG@k has binary
    gains and discount 1 / log2(rank + 1), its ideal min(k, relevant) hits on top
    (Jarvelin and Kekalainen 2002); MRR@k is one over the rank of the first hit, 0 where
    none; hit rate is 1 with any hit. Users without relevant items add nothing.

    Args:
        rows_Bk: int64 [B, k] in order of rank, -1 where there is no result.
        relevant: the items to find, by user.
        ks: numbers of results to measure at; one above the width of `rows_Bk` counts all.

    Returns:
        sums by "recall@10" and so on, for each of `ks`.
    """
    return hit_sums(hits(rows_Bk, relevant), relevant.lengths, ks)


def hit_sums(hit_Bk: Tensor, count_B: Tensor, ks: Sequence[int]) -> dict[str, float]:
    """`metric_sums` from hits.

    Args:
        hit_Bk: bool [B, k] in order of rank; see `hits`.
        count_B: int64 [B], how many items each user's list has.
        ks: numbers of results to measure at.

    Returns:
        sums by "recall@10" and so on, for each of `ks`.
    """
    hit_Bk, width = hit_Bk.double(), hit_Bk.shape[1]
    ranks = torch.arange(1, max(width, *ks) + 1, dtype=torch.float64, device=hit_Bk.device)
    discount = 1.0 / torch.log2(ranks + 1)
    ideal = torch.cat((discount.new_zeros(1), discount.cumsum(0)))
    sums: dict[str, float] = {}
    for k in ks:
        hit = hit_Bk[:, :k]
        length = min(k, width)
        hits_B = hit.sum(1)
        ideal_B = ideal[count_B.clamp(max=k)]
        sums[f"recall@{k}"] = float((hits_B / count_B.clamp(min=1)).sum())
        gain_B = (hit * discount[:length]).sum(1)
        sums[f"ndcg@{k}"] = float((gain_B / ideal_B.clamp(min=1e-300)).sum())
        first_B = (hit / ranks[:length]).amax(1) if length else hits_B
        sums[f"mrr@{k}"] = float(first_B.sum())
        sums[f"hit_rate@{k}"] = float((hits_B > 0).sum())
    return sums


def precision_sums(hit_Bk: Tensor, count_B: Tensor, ks: Sequence[int]) -> dict[str, float]:
    """Sums over users of MAP@k and R-precision@k; divide by the number of users for means.

    MAP@k is the mean, over min(k, relevant) items, of the precision at the rank of each hit
    (average precision of Manning, Raghavan and Schuetze 2008, section 8.4, of lists cut at k).
    R-precision@k is the precision among the first R = min(k, relevant) results: that of the same
    section where k is at least the number of relevant items. Users without relevant items add
    nothing.

    Args:
        hit_Bk: bool [B, k] in order of rank; see `hits`.
        count_B: int64 [B], how many items each user's list has, no fewer than hits.
        ks: numbers of results to measure at.

    Returns:
        sums by "map@10" and so on, for each of `ks`.
    """
    user_M, rank_M = hit_Bk.nonzero(as_tuple=True)  # by user, then by rank from 0
    found_B = hit_Bk.sum(1)
    number_M = torch.arange(1, len(user_M) + 1, device=user_M.device)
    number_M -= (found_B.cumsum(0) - found_B)[user_M]
    precision_M = number_M.double() / (rank_M + 1)
    sums: dict[str, float] = {}
    for k in ks:
        wanted_M = count_B[user_M].clamp(max=k)
        within_M, first_M = rank_M < k, rank_M < wanted_M
        sums[f"map@{k}"] = float((precision_M / wanted_M)[within_M].sum())
        sums[f"r_precision@{k}"] = float((1.0 / wanted_M.double())[first_M].sum())
    return sums
