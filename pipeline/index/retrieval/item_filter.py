"""Searches that may answer only some of the items: an allow-list.

Legend: B queries, K answers each, C chosen queries, A allowed items, D coordinates.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from embedmill.pipeline.index.contract import Floats, Rows
from embedmill.pipeline.index.retrieval.row_search import IndexReader, first_kept, nothing
from embedmill.pipeline.score import RowLists, hits, top_k

__all__ = ["Allowed"]

# So few allowed items are compared one by one, which is exact and as fast as a walk.
_FEW = 1 << 15
# To be asked for a quarter of the catalogue is to be asked for a look at all of it.
_LARGE = 4
# More answers than the share of allowed items says, as they do not come evenly.
_SPARE = 1.5
_ANSWERS = 1 << 22


@dataclass(frozen=True)
class Allowed:
    """The items that may be answered: `row_A`, rows in the index, rising.

    `gather` gives the vectors of rows, float32 [A, D]; None where the index stands alone, and
    all questions must go through it.

    FAISS can be given a selector of ids instead. A graph then walks through items that it may
    not answer, with the effort that was tuned for all of them, and finds the fewer the rarer
    the allowed ones are; codes compared in registers take none at all. To ask for more answers
    and strike out works with every kind, and the effort grows by itself.
    """

    row_A: Rows
    gather: Callable[[Rows], Floats] | None = None

    @functools.cached_property
    def item_AD(self) -> torch.Tensor:  # noqa: N802 (a shape)
        """Vectors of the allowed items, read once."""
        assert self.gather is not None
        return torch.from_numpy(self.gather(self.row_A))

    def search(
        self, index: IndexReader, query_BD: Floats, k: int, seen: RowLists
    ) -> tuple[Floats, Rows]:
        """The k best allowed items outside each query's list.

        Returns:
            scores float32 [B, k] and rows int64 [B, k], -inf and -1 where there are no more.
        """
        found = nothing(len(query_BD), k)
        if not len(self.row_A):
            return found
        share = len(self.row_A) / index.items
        exponent_B = torch.log2(_SPARE * (k + seen.lengths) / share + 1).ceil().long()
        for exponent in torch.unique(exponent_B).tolist():
            left, width = (exponent_B == exponent).nonzero()[:, 0], min(1 << exponent, index.items)
            while len(left):
                if self.gather is not None and self._few(index, width):
                    self._exact(query_BD, left, seen, found)
                    break
                left = self._struck(index, query_BD, (left, width), seen, found)
                if width == index.items:
                    break
                width = min(4 * width, index.items)
        return found

    def _few(self, index: IndexReader, width: int) -> bool:
        return len(self.row_A) <= _FEW or width * _LARGE >= index.items

    def _exact(
        self, query_BD: Floats, chosen: torch.Tensor, seen: RowLists, found: tuple[Floats, Rows]
    ) -> None:
        """Answer the chosen queries, every allowed item compared."""
        at, theirs = chosen.numpy(), seen.select(chosen)
        place = torch.from_numpy(np.searchsorted(self.row_A, theirs.rows.numpy()))
        place.clamp_(max=len(self.row_A) - 1)
        ours = torch.from_numpy(self.row_A)[place] == theirs.rows
        struck = RowLists.of(theirs.users()[ours], place[ours], len(at))
        query_CD, k = torch.from_numpy(query_BD[at]), found[0].shape[1]
        score_Ck, place_Ck = (x.numpy() for x in top_k(query_CD, [(0, self.item_AD)], k, struck))
        found[0][at] = score_Ck
        found[1][at] = np.where(place_Ck < 0, -1, self.row_A[place_Ck])

    def _struck(
        self,
        index: IndexReader,
        query_BD: Floats,
        asked: tuple[torch.Tensor, int],
        seen: RowLists,
        found: tuple[Floats, Rows],
    ) -> torch.Tensor:
        """Answer with what is left of the index's first `width`; gives those who lack some."""
        (left, width), k, lacking = asked, found[0].shape[1], [asked[0][:0]]
        for chosen in torch.split(left, max(1, _ANSWERS // width)):
            at = chosen.numpy()
            score_CK, row_CK = index.search(query_BD[at], width)
            place = np.searchsorted(self.row_A, row_CK)
            place[place == len(self.row_A)] = 0
            struck_CK = self.row_A[place] != row_CK
            struck_CK |= hits(torch.from_numpy(row_CK), seen.select(chosen)).numpy()
            score_Ck, row_Ck = first_kept(score_CK, row_CK, struck_CK, k)
            held = row_Ck.shape[1]
            found[0][at, :held], found[1][at, :held] = score_Ck, row_Ck
            short = (row_Ck < 0).any(axis=1) | (held < k)
            lacking.append(chosen[torch.from_numpy(short)])
        return torch.cat(lacking)
