"""Rows that a search must not return, a list for each query; without torch, as readers have none.

Legend: B queries, C queries chosen of them, K answers each, M pairs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from embedmill.pipeline.index.searchable import Rows

__all__ = ["ExcludedRows"]

# Answers in memory at once where excluded rows are removed from them.
_MAX_ANSWERS = 1 << 22


@dataclass(frozen=True)
class ExcludedRows:
    """Query b must not get `rows[indptr[b] : indptr[b + 1]]`.

    `indptr` is int64 [B + 1], `rows` int64 [M]; a list has each row at most once.
    """

    indptr: Rows
    rows: Rows

    @staticmethod
    def of(queries: Rows, rows: Rows, count: int) -> ExcludedRows:
        """Lists of `count` queries from pairs; a repeated pair counts once.

        Args:
            queries: int64 [M], number of the query, 0 to count - 1.
            rows: int64 [M].
            count: number of queries.
        """
        width = int(rows.max()) + 1 if len(rows) else 1
        keys = np.unique(queries * width + rows)
        return ExcludedRows(_offsets(np.bincount(keys // width, minlength=count)), keys % width)

    @staticmethod
    def none(count: int) -> ExcludedRows:
        """Empty lists of `count` queries."""
        return ExcludedRows(np.zeros(count + 1, np.int64), np.empty(0, np.int64))

    @property
    def lengths(self) -> Rows:
        """Number of rows of each list, int64 [B]."""
        return np.diff(self.indptr)

    def queries(self) -> Rows:
        """The query that each of `rows` belongs to, int64 [M]."""
        return np.repeat(np.arange(len(self.indptr) - 1), self.lengths)

    def select(self, chosen: Rows) -> ExcludedRows:
        """The lists of the queries `chosen`, int64 [C], in this order."""
        lengths = self.lengths[chosen]
        indptr = _offsets(lengths)
        shift = np.repeat(self.indptr[chosen] - indptr[:-1], lengths)
        return ExcludedRows(indptr, self.rows[np.arange(int(indptr[-1])) + shift])

    def union(self, other: ExcludedRows) -> ExcludedRows:
        """The rows of both, for each query."""
        queries = np.concatenate((self.queries(), other.queries()))
        rows = np.concatenate((self.rows, other.rows))
        return ExcludedRows.of(queries, rows, len(self.indptr) - 1)

    def contain(self, row_BK: Rows) -> NDArray[np.bool_]:
        """Whether each answer is in its query's list, bool [B, K]; -1 never is."""
        if not len(self.rows) or not row_BK.size:
            return np.zeros(row_BK.shape, bool)
        width = max(int(self.rows.max()), int(row_BK.max())) + 1
        keys = np.sort(self.queries() * width + self.rows)
        answer_keys = np.arange(len(row_BK))[:, None] * width + row_BK
        place = np.minimum(np.searchsorted(keys, answer_keys), len(keys) - 1)
        contained: NDArray[np.bool_] = (keys[place] == answer_keys) & (row_BK >= 0)
        return contained

    def widths(self, k: int, items: int) -> Iterator[tuple[Rows, int]]:
        """How many answers a search must give so that k of them are not excluded.

        That is k plus the number of excluded rows, at most all items; it is rounded up to a power
        of two, so that many queries have the same number and are searched for together.

        Yields:
            queries int64 [C], and the number of their answers; C * number is bounded.
        """
        exponent_B = np.ceil(np.log2(k + self.lengths)).astype(np.int64)
        for exponent in np.unique(exponent_B).tolist():
            width = min(1 << exponent, items)
            queries = np.flatnonzero(exponent_B == exponent)
            step = max(1, _MAX_ANSWERS // max(1, width))
            for start in range(0, len(queries), step):
                yield queries[start : start + step], width


def _offsets(lengths: Rows) -> Rows:
    """Where lists of these lengths begin, and where the last one ends, int64 [B + 1]."""
    return np.concatenate((np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)))
