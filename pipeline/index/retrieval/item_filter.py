"""Searches restricted to some of the items.

Legend: B queries, K answers before some are removed, k answers wanted, C queries searched
together, A allowed items, D coordinates.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from embedmill.pipeline.index.excluded_rows import ExcludedRows
from embedmill.pipeline.index.exhaustive_search import exact_search
from embedmill.pipeline.index.retrieval.row_search import RowSearcher, first_allowed
from embedmill.pipeline.index.searchable import Floats, Rows, no_answers

__all__ = ["ItemFilter"]

# So few allowed items are compared one by one, which is exact and as fast as a graph search.
_FEW = 1 << 15
# If k >= n / 4, search exhaustively.
_EXHAUSTIVE = 4
# The surplus of answers by the share of allowed items is raised by this factor, because they are
# not spread evenly.
_SURPLUS = 1.5
# Answers in memory at once.
_MAX_ANSWERS = 1 << 22


@dataclass(frozen=True)
class ItemFilter:
    """The items that a search may return: `row_A`, rows in the index, rising.

    `gather` gives vectors of rows, float32 [A, D]; None where the index is open without its run,
    and every search has to go through the index.

    The index is searched for more answers, and those that are not allowed are removed; the effort
    of the search grows with their number. FAISS could be given a selector of ids instead. But
    then a graph search visits items that it may not return with the effort tuned for all
    items, and finds fewer the rarer the allowed ones are; and four-bit codes take no selector.
    """

    row_A: Rows
    gather: Callable[[Rows], Floats] | None = None

    @functools.cached_property
    def item_AD(self) -> Floats:  # noqa: N802 (a shape)
        """Vectors of the allowed items, read once."""
        assert self.gather is not None
        return self.gather(self.row_A)

    def search(
        self, index: RowSearcher, query_BD: Floats, k: int, excluded: ExcludedRows
    ) -> tuple[Floats, Rows]:
        """The k best allowed items outside each query's list.

        Args:
            index: to search.
            query_BD: float32 [B, D].
            k: answers wanted.
            excluded: rows to leave out, a list for each query.

        Returns:
            scores float32 [B, k] and rows int64 [B, k], -inf and -1 where there are no more.
        """
        answers = no_answers(len(query_BD), k)
        if not len(self.row_A):
            return answers
        share = len(self.row_A) / index.items
        surplus_B = _SURPLUS * (k + excluded.lengths) / share
        exponent_B = np.ceil(np.log2(surplus_B + 1)).astype(np.int64)
        for exponent in np.unique(exponent_B).tolist():
            lacking, width = np.flatnonzero(exponent_B == exponent), 1 << exponent
            width = min(width, index.items)
            while len(lacking):
                if self.gather is not None and self._exact_is_faster(index, width):
                    self._search_exact(query_BD, lacking, excluded, answers)
                    break
                lacking = self._search_index(index, query_BD, lacking, width, excluded, answers)
                if width == index.items:
                    break
                width = min(4 * width, index.items)
        return answers

    def _exact_is_faster(self, index: RowSearcher, width: int) -> bool:
        return len(self.row_A) <= _FEW or width * _EXHAUSTIVE >= index.items

    def _search_exact(
        self,
        query_BD: Floats,
        chosen: Rows,
        excluded: ExcludedRows,
        answers: tuple[Floats, Rows],
    ) -> None:
        """Answer the chosen queries in place, comparing every allowed item."""
        lists, k = excluded.select(chosen), answers[0].shape[1]
        place = np.minimum(np.searchsorted(self.row_A, lists.rows), len(self.row_A) - 1)
        is_allowed = self.row_A[place] == lists.rows
        excluded_places = ExcludedRows.of(
            lists.queries()[is_allowed], place[is_allowed], len(chosen)
        )
        score_Ck, place_Ck = exact_search(query_BD[chosen], [(0, self.item_AD)], k, excluded_places)
        answers[0][chosen] = score_Ck
        answers[1][chosen] = np.where(place_Ck < 0, -1, self.row_A[place_Ck])

    def _search_index(
        self,
        index: RowSearcher,
        query_BD: Floats,
        chosen: Rows,
        width: int,
        excluded: ExcludedRows,
        answers: tuple[Floats, Rows],
    ) -> Rows:
        """Answer the chosen queries in place with the allowed among the first `width` answers.

        Returns the queries that still lack answers.
        """
        k, lacking = answers[0].shape[1], [chosen[:0]]
        step = max(1, _MAX_ANSWERS // width)
        for start in range(0, len(chosen), step):
            batch = chosen[start : start + step]
            score_CK, row_CK = index.search(query_BD[batch], width)
            place = np.searchsorted(self.row_A, row_CK)
            place[place == len(self.row_A)] = 0
            excluded_CK = self.row_A[place] != row_CK
            excluded_CK |= excluded.select(batch).contain(row_CK)
            score_Ck, row_Ck = first_allowed(score_CK, row_CK, excluded_CK, k)
            found_k = row_Ck.shape[1]
            answers[0][batch, :found_k], answers[1][batch, :found_k] = score_Ck, row_Ck
            incomplete = (row_Ck < 0).any(axis=1) | (found_k < k)
            lacking.append(batch[incomplete])
        return np.concatenate(lacking)
