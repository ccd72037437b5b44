"""Exact top-k over a catalogue of any size.

Legend: B users, k results of a user, N items of a block, D coordinates, M pairs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from embedmill.pipeline.errors import NotFiniteError

__all__ = ["RowLists", "are_among", "hits", "top_k", "widths"]

# Scores in memory at once: 64 MiB of float32, for a catalogue of any size.
_SCORES = 1 << 24
# A block where a user has more than this times k scores above its k-th so far is ranked as a
# whole.
_MOST_CANDIDATES = 4
# Results in memory at once where seen items are removed from rankings.
_RESULTS = 1 << 22


@dataclass(frozen=True)
class RowLists:
    """One list of item rows per user: user b has `rows[indptr[b] : indptr[b + 1]]`.

    `indptr` is int64 [B + 1], `rows` int64 [M]; a list has each row at most once.
    """

    indptr: Tensor
    rows: Tensor

    @staticmethod
    def of(users: Tensor, rows: Tensor, count: int) -> RowLists:
        """Lists of `count` users from pairs; a repeated pair counts once.

        Args:
            users: int64 [M], number of the list, 0 to count - 1.
            rows: int64 [M], item rows.
            count: number of lists.
        """
        width = int(rows.max()) + 1 if rows.numel() else 1
        keys = torch.unique(users * width + rows)
        lengths = torch.bincount(keys // width, minlength=count)
        indptr = torch.zeros(count + 1, dtype=torch.int64, device=rows.device)
        torch.cumsum(lengths, 0, out=indptr[1:])
        return RowLists(indptr, keys % width)

    @property
    def lengths(self) -> Tensor:
        """Number of rows of each user, int64 [B]."""
        return self.indptr.diff()

    def users(self) -> Tensor:
        """The user that each of `rows` belongs to, int64 [M]."""
        every = torch.arange(len(self.indptr) - 1, device=self.rows.device)
        return every.repeat_interleave(self.lengths)

    def select(self, chosen: Tensor) -> RowLists:
        """The lists of the users `chosen`, int64 [C], in this order."""
        lengths = self.lengths[chosen]
        indptr = torch.zeros(len(chosen) + 1, dtype=torch.int64, device=self.rows.device)
        torch.cumsum(lengths, 0, out=indptr[1:])
        shift = (self.indptr[chosen] - indptr[:-1]).repeat_interleave(lengths)
        within = torch.arange(int(indptr[-1]), device=self.rows.device)
        return RowLists(indptr, self.rows[within + shift])


def top_k(
    user_BD: Tensor,
    blocks: Iterable[tuple[int, Tensor]],
    k: int,
    seen: RowLists | None = None,
    barred: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The k items of largest inner product for each user; among equal scores, lower rows first.

    Memory is B x k and one block of scores of bounded size, for any number of items.

    Args:
        user_BD: float32 [B, D].
        blocks: (first row, float32 [N, D]) of consecutive items, by rising row.
        k: results for each user; may exceed the catalogue.
        seen: rows that a user must not get.
        barred: int64, rows that no user gets, rising.

    Returns:
        scores float32 [B, k], falling, and rows int64 [B, k]; where a user has fewer than k
        items left, scores end in -inf and rows in -1.

    Raises:
        NotFiniteError: a score is NaN.
    """
    best_Bk = user_BD.new_full((len(user_BD), k), -torch.inf)
    rows_Bk = torch.full((len(user_BD), k), -1, dtype=torch.int64, device=user_BD.device)
    masks = _Masks.of(seen) if seen is not None else None
    step = max(1, _SCORES // max(1, len(user_BD)))
    for first, item_ND in blocks:
        for start in range(0, len(item_ND), step):
            part_ND = item_ND[start : start + step].to(user_BD.device)
            score_BN = user_BD @ part_ND.T
            if masks is not None:
                masks.apply(score_BN, first + start)
            if barred is not None:
                low, high = _between(barred, first + start, score_BN.shape[1])
                score_BN[:, barred[low:high] - first - start] = -torch.inf
            _merge(best_Bk, rows_Bk, score_BN, first + start)
    if bool(best_Bk.isnan().any()):
        raise NotFiniteError("a score is not a number: the vectors are damaged or diverged")
    return best_Bk, rows_Bk.masked_fill(best_Bk == -torch.inf, -1)


def _merge(best_Bk: Tensor, rows_Bk: Tensor, score_BN: Tensor, first: int) -> None:
    """Merge the scores of items `first`, `first` + 1, ... into the results so far, in place.

    Items come by falling count, so few of a later block score above a user's k-th so far: only
    these are ranked, not the whole block.
    """
    k, least_B1 = best_Bk.shape[1], best_Bk[:, -1:]
    if bool((least_B1 == -torch.inf).any()):  # the first block
        _insert(best_Bk, rows_Bk, *_block_top_k(score_BN, k), first)
        return
    # "Not <=" instead of ">": a score that is NaN must get through, to be reported.
    user_M, column_M = torch.le(score_BN, least_B1).logical_not_().nonzero(as_tuple=True)
    count_B = torch.bincount(user_M, minlength=len(score_BN))
    widest = int(count_B.max()) if len(user_M) else 0
    if widest > k * _MOST_CANDIDATES:
        _insert(best_Bk, rows_Bk, *_block_top_k(score_BN, k), first)
    elif widest:
        place_M = torch.arange(len(user_M), device=user_M.device)
        place_M -= (count_B.cumsum(0) - count_B)[user_M]
        score_BK = score_BN.new_full((len(score_BN), widest), -torch.inf)
        row_BK = torch.zeros((len(score_BN), widest), dtype=torch.int64, device=user_M.device)
        score_BK[user_M, place_M] = score_BN[user_M, column_M]
        row_BK[user_M, place_M] = column_M
        _insert(best_Bk, rows_Bk, score_BK, row_BK, first)


def _insert(best_Bk: Tensor, rows_Bk: Tensor, score_BK: Tensor, row_BK: Tensor, first: int) -> None:
    """Keep the k best of the results so far and those of a block, in place."""
    k = best_Bk.shape[1]
    # Results so far have lower rows: a stable sort keeps them first among equal scores.
    both, place = torch.cat((best_Bk, score_BK), 1).sort(dim=1, descending=True, stable=True)
    rows = torch.cat((rows_Bk, row_BK + first), 1).gather(1, place[:, :k])
    best_Bk.copy_(both[:, :k])
    rows_Bk.copy_(rows)


@dataclass(frozen=True)
class _Masks:
    """Seen pairs sorted by item, so that a block finds those of its items by bisection."""

    rows: Tensor
    users: Tensor

    @staticmethod
    def of(seen: RowLists) -> _Masks:
        rows, order = seen.rows.sort()
        return _Masks(rows, seen.users()[order])

    def apply(self, score_BN: Tensor, first: int) -> None:
        low, high = _between(self.rows, first, score_BN.shape[1])
        score_BN[self.users[low:high], self.rows[low:high] - first] = -torch.inf


def _between(rows: Tensor, first: int, number: int) -> tuple[int, int]:
    """Where the rows first to first + number - 1 begin and end in a rising list."""
    ends = torch.tensor([first, first + number], device=rows.device)
    low, high = torch.searchsorted(rows, ends).tolist()
    return low, high


def _block_top_k(score_BN: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The block's k best, all of a smaller block; among equal scores, lower columns first."""
    n = score_BN.shape[1]
    if n <= k:
        return score_BN.sort(dim=1, descending=True, stable=True)
    # torch.topk picks any of equal scores. One more result shows where that matters.
    score_BK, column_BK = score_BN.topk(k + 1, dim=1)
    tied = (score_BK[:, k] == score_BK[:, k - 1]) & (score_BK[:, k] > -torch.inf)
    column_Bk, order = column_BK[:, :k].sort(dim=1)
    score_Bk, place = score_BK[:, :k].gather(1, order).sort(dim=1, descending=True, stable=True)
    column_Bk = column_Bk.gather(1, place)
    for b in tied.nonzero()[:, 0].tolist():
        score_Bk[b], column_Bk[b] = _exact_row(score_BN[b], k, score_BK[b, k])
    return score_Bk, column_Bk


def _exact_row(score_N: Tensor, k: int, least: Tensor) -> tuple[Tensor, Tensor]:
    """One user's k best where several items have the k-th score, `least`: lowest columns first."""
    above = (score_N > least).nonzero()[:, 0]
    equal = (score_N == least).nonzero()[: k - len(above), 0]
    column = torch.cat((above, equal))
    score, order = score_N[column].sort(descending=True, stable=True)
    return score, column[order]


def widths(k: int, seen: RowLists, items: int) -> Iterator[tuple[Tensor, int]]:
    """How long a ranking must be to have k items that the user has not seen.

    That is k plus the number of seen items, at most the catalogue; it is rounded up to a power
    of two, so that many users have the same length and are searched for together.

    Yields:
        users int64 [C], and the length of their rankings; C * length is bounded.
    """
    exponent_B = torch.log2((k + seen.lengths).double()).ceil().long()
    for exponent in torch.unique(exponent_B).tolist():
        width = min(1 << exponent, items)
        users = (exponent_B == exponent).nonzero()[:, 0]
        for chosen in users.split(max(1, _RESULTS // max(1, width))):
            yield chosen, width


def hits(rows_Bk: Tensor, relevant: RowLists) -> Tensor:
    """Whether each result is in its user's list, bool [B, k]; -1 never is."""
    if not relevant.rows.numel():
        return torch.zeros_like(rows_Bk, dtype=torch.bool)
    width = max(int(relevant.rows.max()), int(rows_Bk.max()) if rows_Bk.numel() else 0) + 1
    result_keys = torch.arange(len(rows_Bk), device=rows_Bk.device)[:, None] * width + rows_Bk
    return are_among(result_keys, relevant.users() * width + relevant.rows) & (rows_Bk >= 0)


def are_among(keys: Tensor, known_N: Tensor) -> Tensor:
    """Whether each key is a known one, bool of the shape of `keys`.

    `torch.isin` sorts both and takes thrice as long.
    """
    if not len(known_N):
        return torch.zeros_like(keys, dtype=torch.bool)
    known_N = known_N.sort().values
    place = torch.searchsorted(known_N, keys).clamp_(max=len(known_N) - 1)
    return known_N[place] == keys
