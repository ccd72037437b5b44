"""Exact answers over items that are not in memory, found file by file.

Legend: B queries, k answers each, M best items kept for each, A answers before the best are
taken, N live items of a file, U undecided queries, D coordinates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import faiss
import numpy as np
from numpy.typing import NDArray

from embedmill.pipeline.index.faiss_threads import faiss_threads
from embedmill.pipeline.index.measure import (
    Doubles,
    Latency,
    Truth,
    exact_latency,
    least_correct,
    rescore,
)
from embedmill.pipeline.index.searchable import Floats, Rows
from embedmill.pipeline.task_pool import TaskPool
from embedmill.pipeline.views.vectors import LiveFile, LiveVectors, Vectors

__all__ = ["FilewiseTruth", "exact_latency_by_file", "filewise_truths"]

# Items kept beyond the k best, to recognize those as good as the k-th.
_SURPLUS = 32
# Queries compared with a file at once.
_BATCH = 512
# Queries that exact search is timed with.
_TIMED = 20


@dataclass(frozen=True)
class FilewiseTruth:
    """A `Truth` over items on disk: the positions [B, M] of each query's best items, and scores.

    An answer is correct if it is one of these and reaches the k-th score. Where all M items do,
    further items may as well; then the vectors of the answers are read.
    """

    query_BD: Floats
    kth_score_B: Doubles
    k: int
    live_items: LiveVectors
    position_BM: Rows
    score_BM: Doubles

    def correct(self, position_Bk: Rows) -> NDArray[np.bool_]:
        """See `Truth.correct`."""
        least_B = least_correct(self.kth_score_B)
        good_BM = (self.score_BM >= least_B[:, None]) & (self.position_BM >= 0)
        good_position_BM = np.where(good_BM, self.position_BM, -2)
        correct_Bk: NDArray[np.bool_] = (
            position_Bk[:, :, None] == good_position_BM[:, None, :]
        ).any(axis=2)
        undecided = np.flatnonzero(good_BM.all(axis=1) & (position_Bk >= 0).any(axis=1))
        if len(undecided) and self.position_BM.shape[1] < self.live_items.items:
            position_Uk = position_Bk[undecided]
            distinct, place_Uk = np.unique(position_Uk, return_inverse=True)
            vectors = self.live_items.gather(np.maximum(distinct, 0))
            place_Uk = place_Uk.reshape(position_Uk.shape)
            score_Uk = rescore(self.query_BD[undecided], place_Uk, vectors)
            reached_Uk = score_Uk >= least_B[undecided][:, None]
            correct_Bk[undecided] = reached_Uk & (position_Uk >= 0)
        return correct_Bk


@dataclass(frozen=True)
class _FileTask:
    """Find the `most` best items of a file for each query."""

    vectors: Vectors
    file: LiveFile
    query_BD: Floats
    most: int


def filewise_truths(
    live_items: LiveVectors, pool: TaskPool, queries: Sequence[Floats], k: int
) -> list[FilewiseTruth]:
    """Compare several sets of queries with all items, file by file.

    Args:
        live_items: the live items.
        pool: runs a task for each file.
        queries: float32 [B, D] each.
        k: answers to each query.

    Returns:
        the truth of each set.
    """
    query_BD = np.concatenate(queries)
    k = min(k, live_items.items)
    most = min(k + _SURPLUS, live_items.items)
    score_BM = np.full((len(query_BD), most), -np.inf)
    position_BM = np.full((len(query_BD), most), -1, np.int64)
    tasks = [_FileTask(live_items.vectors, file, query_BD, most) for file in live_items.files]
    for of_file in pool.map(_best_of_file, tasks):
        score_BA = np.concatenate((score_BM, of_file[0]), axis=1)
        position_BA = np.concatenate((position_BM, of_file[1]), axis=1)
        order = np.lexsort((position_BA, -score_BA), axis=1)[:, :most]
        score_BM = np.take_along_axis(score_BA, order, 1)
        position_BM = np.take_along_axis(position_BA, order, 1)
    ends = np.cumsum([len(some) for some in queries])[:-1]
    sets = [np.split(array, ends) for array in (query_BD, score_BM, position_BM)]
    return [
        FilewiseTruth(
            query_BD=query,
            kth_score_B=score[:, k - 1] if k else np.empty(len(query)),
            k=k,
            live_items=live_items,
            position_BM=position,
            score_BM=score,
        )
        for query, score, position in zip(*sets, strict=True)
    ]


def _best_of_file(task: _FileTask) -> tuple[Doubles, Rows]:
    """Scores float64 and positions int64 of the best items of a file, [B, at most M]."""
    _, item_ND = LiveVectors(task.vectors, (task.file,)).read(task.file)
    most = min(task.most, len(item_ND))
    score_BM = np.empty((len(task.query_BD), most))
    row_BM = np.empty((len(task.query_BD), most), np.int64)
    with faiss_threads(1):
        for first in range(0, len(task.query_BD), _BATCH):
            some = slice(first, first + _BATCH)
            query_BD = np.ascontiguousarray(task.query_BD[some])
            _, row_BM[some] = faiss.knn(query_BD, item_ND, most, metric=faiss.METRIC_INNER_PRODUCT)
            score_BM[some] = rescore(query_BD, row_BM[some], item_ND)
    return score_BM, row_BM + task.file.position


def exact_latency_by_file(live_items: LiveVectors, truth: Truth) -> Latency:
    """Time of exact search, extrapolated from one file: all vectors do not fit into memory."""
    if not live_items.files:
        return Latency(0.0, 0.0)
    file = live_items.files[0]
    _, item_ND = live_items.read(file)
    of_file = exact_latency(item_ND, truth.query_BD[:_TIMED], min(truth.k, file.items))
    times = live_items.items / file.items
    return Latency(round(of_file.mean * times, 4), round(of_file.p99 * times, 4))
