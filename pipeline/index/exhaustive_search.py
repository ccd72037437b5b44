"""The best items by comparison of every one, in NumPy: readers have no torch.

Legend: B queries, k answers each, N items of a block, M candidates, D coordinates.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from embedmill.pipeline.errors import NotFiniteError
from embedmill.pipeline.index.excluded_rows import ExcludedRows
from embedmill.pipeline.index.searchable import Floats, Rows, no_answers

__all__ = ["exact_search"]

# Scores in memory at once: 64 MiB of float32, for a catalogue of any size.
_SCORES = 1 << 24


def exact_search(
    query_BD: Floats,
    blocks: Iterable[tuple[int, Floats]],
    k: int,
    excluded: ExcludedRows | None = None,
    barred: Rows | None = None,
) -> tuple[Floats, Rows]:
    """The k items of largest inner product with each query; among equal scores, lower rows first.

    Args:
        query_BD: float32 [B, D].
        blocks: (first row, float32 [N, D]) of consecutive items, by rising row.
        k: answers wanted; may exceed the catalogue.
        excluded: rows that a query must not get.
        barred: int64, rows that no query gets, rising.

    Returns:
        scores float32 [B, k], falling, and rows int64 [B, k]; -inf and -1 where there are no more.

    Raises:
        NotFiniteError: a score is NaN.
    """
    best, step = no_answers(len(query_BD), k), max(1, _SCORES // max(1, len(query_BD)))
    for first, item_ND in blocks:
        for start in range(0, len(item_ND), step):
            score_BN = query_BD @ item_ND[start : start + step].T
            if np.isnan(score_BN).any():
                raise NotFiniteError("a score is not a number: the vectors are damaged or diverged")
            low, high = first + start, first + start + score_BN.shape[1]
            if excluded is not None:
                here = (excluded.rows >= low) & (excluded.rows < high)
                score_BN[excluded.queries()[here], excluded.rows[here] - low] = -np.inf
            if barred is not None:
                here = slice(*np.searchsorted(barred, [low, high]))
                score_BN[:, barred[here] - low] = -np.inf
            best = _merge(best, score_BN, low)
    score_Bk, row_Bk = best
    return score_Bk, np.where(score_Bk == -np.inf, -1, row_Bk)


def _merge(best: tuple[Floats, Rows], score_BN: Floats, first: int) -> tuple[Floats, Rows]:
    """The k best of the answers so far and of the items `first`, `first` + 1, ..."""
    score_Bk, row_Bk = best
    k = score_Bk.shape[1]
    least_B1 = score_Bk[:, -1:]
    if score_BN.shape[1] > k:  # no score below the block's own k-th is an answer
        least_B1 = np.maximum(least_B1, np.partition(score_BN, -k, axis=1)[:, [-k]])
    query_M, column_M = np.nonzero((score_BN >= least_B1) & (score_BN > -np.inf))
    old = np.repeat(np.arange(len(score_Bk)), k)
    queries = np.concatenate((old, query_M))
    scores = np.concatenate((score_Bk.ravel(), score_BN[query_M, column_M]))
    rows = np.concatenate((row_Bk.ravel(), column_M + first))
    order = np.lexsort((rows, -scores, queries))
    begins = np.searchsorted(queries[order], np.arange(len(score_Bk)))
    kept = order[begins[:, None] + np.arange(k)]
    return scores[kept], rows[kept]
