"""How good and how fast an index is, with vectors of users it will be asked for.

Legend: B queries, k answers each, N items, D coordinates.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import faiss
import numpy as np
import torch
from numpy.typing import NDArray

from embedmill.pipeline.index.contract import Floats, K, Rows, Searchable, threads
from embedmill.pipeline.score import top_k
from embedmill.pipeline.store.artifact import Artifact

__all__ = [
    "Doubles",
    "K",
    "Latency",
    "Truth",
    "choose_users",
    "exact_latency",
    "halves",
    "latency",
    "mix",
    "recall",
    "recalls",
    "rescore",
    "truth_of",
]

Doubles = NDArray[np.float64]

_TIMED = 200
# Coordinates of answers held at once while their scores are recomputed.
_GATHERED = 1 << 22


@dataclass(frozen=True)
class Truth:
    """Queries [B, D] and the exact score of each one's K-th best item, float64 [B]."""

    query_BD: Floats
    least_B: Doubles
    k: int

    @property
    def slack_B(self) -> Doubles:  # noqa: N802 (a shape)
        """What a score may be short of the K-th by and count as equal to it."""
        return 1e-6 * np.maximum(1.0, np.abs(self.least_B))

    def right(self, row_Bk: Rows, item_ND: Floats) -> NDArray[np.bool_]:
        """Which answers are as good as the K best, bool [B, k]; their scores are computed anew."""
        score_Bk = rescore(self.query_BD, row_Bk, item_ND)
        return (score_Bk >= (self.least_B - self.slack_B)[:, None]) & (row_Bk >= 0)


@dataclass(frozen=True)
class Latency:
    """Milliseconds of one query on one thread: mean and 99th percentile."""

    mean: float
    p99: float


def choose_users(shards: Artifact, wanted: int, seed: int) -> tuple[str, Rows]:
    """Rows of users to measure with: held out, known from training, picked by a hash.

    Users with test events come first; a log without any is measured with those of
    validation, and without these with those of training.

    Returns:
        the split they are from, and at most `wanted` rows, rising.
    """
    for split in ("test", "valid", "train"):
        if not shards.counters[split]:
            continue
        best_hash, best_row = np.empty(0, np.uint64), np.empty(0, np.int64)
        for row in _users(shards, split):
            hash_ = np.concatenate((best_hash, mix(row, seed)))
            both = np.concatenate((best_row, row))
            order = np.lexsort((both, hash_))[:wanted]
            best_hash, best_row = hash_[order], both[order]
        if len(best_row):
            return split, np.sort(best_row)
    return "train", np.empty(0, np.int64)


def halves(row: Rows, seed: int) -> tuple[Rows, Rows]:
    """Rows cut in two by a hash, each rising; one row alone is in both."""
    if len(row) < 2:
        return row, row
    order = np.lexsort((row, mix(row, seed)))
    return np.sort(row[order[: len(row) // 2]]), np.sort(row[order[len(row) // 2 :]])


def truth_of(query_BD: Floats, item_ND: Floats, k: int = K) -> Truth:
    """Exact answers over the raw vectors."""
    k = min(k, len(item_ND))
    _, row_Bk = top_k(torch.from_numpy(query_BD), [(0, torch.from_numpy(item_ND))], k)
    score_Bk = rescore(query_BD, row_Bk.numpy(), item_ND)
    return Truth(query_BD, score_Bk.min(axis=1, initial=np.inf), k)


def recall(index: Searchable, truth: Truth, item_ND: Floats, setting: int = 0) -> float:
    """Share of the K best that the index finds, 0 to 1.

    Scores of its answers are recomputed from the raw vectors; one that reaches the exact
    K-th score counts, whichever of equal items it is (as ann-benchmarks does).
    """
    found_B = recalls(index, truth, item_ND, setting)
    return float(found_B.mean()) if len(found_B) else 1.0


def recalls(index: Searchable, truth: Truth, item_ND: Floats, setting: int = 0) -> Doubles:
    """The same of each query, float64 [B]."""
    _, row_Bk = index.search(truth.query_BD, truth.k, setting)
    return np.asarray(truth.right(row_Bk, item_ND).mean(axis=1), np.float64)


def latency(index: Searchable, truth: Truth, setting: int = 0) -> Latency:
    """Time of single queries on one thread, the second time that each is asked."""
    return _timed(lambda query_1D: index.search(query_1D, truth.k, setting), truth)


def exact_latency(item_ND: Floats, truth: Truth) -> Latency:
    """The same of comparing every item, without a copy of them."""
    inner = faiss.METRIC_INNER_PRODUCT
    return _timed(lambda query_1D: faiss.knn(query_1D, item_ND, truth.k, metric=inner), truth)


def _timed(ask: Callable[[Floats], object], truth: Truth) -> Latency:
    query_BD = truth.query_BD[:_TIMED]
    taken = []
    with threads(1):
        for query_D in (*query_BD, *query_BD):
            start = time.perf_counter()
            ask(query_D[None])
            taken.append(time.perf_counter() - start)
    milliseconds = 1000 * np.array(taken[len(query_BD) :] or [0.0])
    return Latency(
        round(float(milliseconds.mean()), 4), round(float(np.quantile(milliseconds, 0.99)), 4)
    )


def _users(shards: Artifact, split: str) -> Iterator[Rows]:
    """By partition, rows of users with events in `split` and in train."""
    for ours, train in zip(shards.files(split), shards.files("train"), strict=True):
        if not ours.rows:
            continue
        held, known = (
            np.unique(shards.read_table(f.path, ["user_row"])["user_row"].to_numpy())
            for f in (ours, train)
        )
        yield held[np.isin(held, known)]


def mix(row: Rows, seed: int) -> NDArray[np.uint64]:
    """splitmix64 of row and seed (Steele, Lea and Flood, OOPSLA 2014)."""
    z = row.astype(np.uint64) + np.uint64(1) + (np.uint64(seed) << np.uint64(32))
    z = z * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def rescore(query_BD: Floats, row_Bk: Rows, item_ND: Floats) -> Doubles:
    """Inner products with the raw vectors in float64 [B, k]; row -1 gives any number."""
    score_Bk = np.empty(row_Bk.shape, np.float64)
    step = max(1, _GATHERED // max(1, row_Bk.shape[1] * item_ND.shape[1]))
    for first in range(0, len(query_BD), step):
        at = slice(first, first + step)
        query_BD64 = query_BD[at].astype(np.float64)
        item_BkD = item_ND[row_Bk[at]].astype(np.float64)
        score_Bk[at] = (item_BkD @ query_BD64[:, :, None])[:, :, 0]
    return score_Bk
