"""How good and how fast an index is, asked with vectors of users.

Legend: B queries, k answers each, N items, D coordinates.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import faiss
import numpy as np
from numpy.typing import NDArray

from embedmill.pipeline.index.faiss_threads import faiss_threads
from embedmill.pipeline.index.searchable import Floats, K, Rows, Searchable

__all__ = [
    "Doubles",
    "GroundTruth",
    "K",
    "Latency",
    "MeasuredSetting",
    "Truth",
    "exact_latency",
    "ground_truth",
    "latency",
    "least_correct",
    "recall",
    "recalls",
    "rescore",
]

Doubles = NDArray[np.float64]

# Queries that are timed, at most.
_TIMED = 200
# Coordinates of answers in memory at once while their scores are computed anew.
_GATHERED = 1 << 22


class Truth(Protocol):
    """Queries, and which answers to them are correct: those as good as the exact k best."""

    @property
    def query_BD(self) -> Floats:  # noqa: N802 (a shape)
        """float32 [B, D]."""
        ...

    @property
    def k(self) -> int:
        """Answers to each query."""
        ...

    def correct(self, position_Bk: Rows) -> NDArray[np.bool_]:
        """Which answers are as good as the exact k best, bool [B, k]."""
        ...


@dataclass(frozen=True)
class GroundTruth:
    """A `Truth` over items in memory: the exact score of each query's k-th best item.

    `query_BD` are float32 [B, D], `kth_score_B` float64 [B], `item_ND` float32 [N, D].
    """

    query_BD: Floats
    kth_score_B: Doubles
    k: int
    item_ND: Floats

    def correct(self, position_Bk: Rows) -> NDArray[np.bool_]:
        """See `Truth.correct`; scores of the answers are computed anew from the vectors."""
        score_Bk = rescore(self.query_BD, position_Bk, self.item_ND)
        return (score_Bk >= least_correct(self.kth_score_B)[:, None]) & (position_Bk >= 0)


@dataclass(frozen=True)
class Latency:
    """Milliseconds of one query on one thread: mean and 99th percentile."""

    mean: float
    p99: float


@dataclass(frozen=True)
class MeasuredSetting:
    """Recall and latency with one value of the search parameter."""

    setting: int
    recall: float
    latency: Latency


def least_correct(kth_score_B: Doubles) -> Doubles:
    """The least score that counts as equal to the k-th best, float64 [B]."""
    return kth_score_B - 1e-6 * np.maximum(1.0, np.abs(kth_score_B))


def ground_truth(query_BD: Floats, item_ND: Floats, k: int = K) -> GroundTruth:
    """Compare every query with every item."""
    import torch  # the build of an index has it, a reader of one need not

    from embedmill.pipeline.score import top_k

    k = min(k, len(item_ND))
    _, row_Bk = top_k(torch.from_numpy(query_BD), [(0, torch.from_numpy(item_ND))], k)
    score_Bk = rescore(query_BD, row_Bk.numpy(), item_ND)
    return GroundTruth(query_BD, score_Bk.min(axis=1, initial=np.inf), k, item_ND)


def recall(index: Searchable, truth: Truth, setting: int = 0) -> float:
    """Share of the exact k best that the index finds, 0 to 1.

    An answer that reaches the exact k-th score counts, whichever of several equal items it is
    (as in ann-benchmarks).
    """
    recall_B = recalls(index, truth, setting)
    return float(recall_B.mean()) if len(recall_B) else 1.0


def recalls(index: Searchable, truth: Truth, setting: int = 0) -> Doubles:
    """As `recall`, of each query, float64 [B]."""
    _, position_Bk = index.search(truth.query_BD, truth.k, setting)
    return np.asarray(truth.correct(position_Bk).mean(axis=1), np.float64)


def latency(index: Searchable, truth: Truth, setting: int = 0) -> Latency:
    """Time of single queries on one thread; each is searched twice, the second search counts."""
    return _timed(lambda query_1D: index.search(query_1D, truth.k, setting), truth.query_BD)


def exact_latency(item_ND: Floats, query_BD: Floats, k: int) -> Latency:
    """As `latency`, of comparing a query with every item, without a copy of the items."""
    product = faiss.METRIC_INNER_PRODUCT
    return _timed(lambda query_1D: faiss.knn(query_1D, item_ND, k, metric=product), query_BD)


def _timed(search: Callable[[Floats], object], query_BD: Floats) -> Latency:
    query_BD = query_BD[:_TIMED]
    seconds = []
    with faiss_threads(1):
        for query_D in (*query_BD, *query_BD):
            start = time.perf_counter()
            search(query_D[None])
            seconds.append(time.perf_counter() - start)
    milliseconds = 1000 * np.array(seconds[len(query_BD) :] or [0.0])
    return Latency(
        round(float(milliseconds.mean()), 4), round(float(np.quantile(milliseconds, 0.99)), 4)
    )


def rescore(query_BD: Floats, position_Bk: Rows, item_ND: Floats) -> Doubles:
    """Inner products with the raw vectors in float64 [B, k]; undefined for position -1."""
    score_Bk = np.empty(position_Bk.shape, np.float64)
    step = max(1, _GATHERED // max(1, position_Bk.shape[1] * item_ND.shape[1]))
    for first in range(0, len(query_BD), step):
        some = slice(first, first + step)
        query64_BD = query_BD[some].astype(np.float64)
        item64_BkD = item_ND[position_Bk[some]].astype(np.float64)
        score_Bk[some] = (item64_BkD @ query64_BD[:, :, None])[:, :, 0]
    return score_Bk
