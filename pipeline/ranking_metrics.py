"""Ranking metrics from the ranks at which relevant items stand.

Legend: B users, k results of a user, M hits.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from embedmill.pipeline.score import RowLists, hits

__all__ = ["METRICS", "PRECISION_METRICS", "metric_sums", "user_metrics", "user_precision"]

METRICS = ("recall", "ndcg", "mrr", "hit_rate")
PRECISION_METRICS = ("map", "r_precision")


def metric_sums(rows_Bk: Tensor, relevant: RowLists, ks: Sequence[int]) -> dict[str, float]:
    """Sums over users of `user_metrics`; divide by the number of users for means.

    Args:
        rows_Bk: int64 [B, k] in order of rank, -1 where there is no result.
        relevant: the items to find, by user.
        ks: numbers of results to measure at; one above the width of `rows_Bk` counts all.
    """
    values = user_metrics(hits(rows_Bk, relevant), relevant.lengths, ks)
    return {name: float(value_B.sum()) for name, value_B in values.items()}


def user_metrics(hit_Bk: Tensor, count_B: Tensor, ks: Sequence[int]) -> dict[str, Tensor]:
    """The ranking metrics of each user.

    Recall@k is hits over all relevant items, as in NGCF and LightGCN; NDCG@k has binary
    gains and discount 1 / log2(rank + 1), its ideal min(k, relevant) hits on top
    (Jarvelin and Kekalainen 2002); MRR@k is one over the rank of the first hit, 0 where
    none; hit rate is 1 with any hit. A user without relevant items has 0.

    Args:
        hit_Bk: bool [B, k] in order of rank; see `hits`.
        count_B: int64 [B], how many items each user's list has.
        ks: numbers of results to measure at; one above the width of `hit_Bk` counts all.

    Returns:
        float64 [B] by "recall@10" and so on, for each of `ks`.
    """
    hit_Bk, width = hit_Bk.double(), hit_Bk.shape[1]
    ranks = torch.arange(1, max(width, *ks) + 1, dtype=torch.float64, device=hit_Bk.device)
    discount = 1.0 / torch.log2(ranks + 1)
    ideal = torch.cat((discount.new_zeros(1), discount.cumsum(0)))
    values: dict[str, Tensor] = {}
    for k in ks:
        hit = hit_Bk[:, :k]
        length = min(k, width)
        hits_B = hit.sum(1)
        ideal_B = ideal[count_B.clamp(max=k)]
        values[f"recall@{k}"] = hits_B / count_B.clamp(min=1)
        values[f"ndcg@{k}"] = (hit * discount[:length]).sum(1) / ideal_B.clamp(min=1e-300)
        values[f"mrr@{k}"] = (hit / ranks[:length]).amax(1) if length else hits_B
        values[f"hit_rate@{k}"] = (hits_B > 0).double()
    return values


def user_precision(hit_Bk: Tensor, count_B: Tensor, ks: Sequence[int]) -> dict[str, Tensor]:
    """MAP and R-precision of each user.

    MAP@k is the mean, over min(k, relevant) items, of the precision at the rank of each hit
    (average precision of Manning, Raghavan and Schuetze 2008, section 8.4, of lists cut at k).
    R-precision@k is the precision among the first R = min(k, relevant) results: that of the same
    section where k is at least the number of relevant items. A user without relevant items has 0.

    Args:
        hit_Bk: bool [B, k] in order of rank; see `hits`.
        count_B: int64 [B], how many items each user's list has, no fewer than hits.
        ks: numbers of results to measure at.

    Returns:
        float64 [B] by "map@10" and so on, for each of `ks`.
    """
    user_M, rank_M = hit_Bk.nonzero(as_tuple=True)  # by user, then by rank from 0
    found_B = hit_Bk.sum(1)
    number_M = torch.arange(1, len(user_M) + 1, device=user_M.device)
    number_M -= (found_B.cumsum(0) - found_B)[user_M]
    precision_M = number_M.double() / (rank_M + 1)
    values: dict[str, Tensor] = {}
    for k in ks:
        wanted_M = count_B[user_M].clamp(max=k)
        within_M, first_M = rank_M < k, rank_M < wanted_M
        for name, value_M, counted_M in (
            (f"map@{k}", precision_M / wanted_M, within_M),
            (f"r_precision@{k}", 1.0 / wanted_M.double(), first_M),
        ):
            value_B = torch.zeros(len(hit_Bk), dtype=torch.float64, device=hit_Bk.device)
            values[name] = value_B.index_add_(0, user_M[counted_M], value_M[counted_M])
    return values
