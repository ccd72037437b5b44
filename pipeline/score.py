"""Exact top-k over a catalogue of any size, and the ranking metrics read off it.

Legend: B users, K the length of the answer, N items of a block, D coordinates.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from embedmill.pipeline.errors import NotFiniteError

__all__ = ["METRICS", "RowLists", "hit_sums", "hits", "metric_sums", "top_k", "widths"]

METRICS = ("recall", "ndcg", "mrr", "hit_rate")

# Scores held at once: 64 MiB of float32, whatever the catalogue.
_SCORES = 1 << 24
# A block that betters more than so many times k answers of a user is ranked as a whole.
_FEW = 4
# Answers held at once where seen items are struck out of a ranking.
_ANSWERS = 1 << 22


@dataclass(frozen=True)
class RowLists:
    """One list of item rows per user: user b has `rows[indptr[b] : indptr[b + 1]]`.

    `indptr` is int64 [B + 1], `rows` int64; a row stands at most once in a list.
    """

    indptr: Tensor
    rows: Tensor

    @staticmethod
    def of(users: Tensor, rows: Tensor, count: int) -> RowLists:
        """Lists of `count` users from pairs; a pair that comes twice is taken once.

        Args:
            users: int64 [M], which list (0 .. count - 1).
            rows: int64 [M], the item row.
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
        """Rows of each user, int64 [B]."""
        return self.indptr.diff()

    def users(self) -> Tensor:
        """Which user each of `rows` belongs to, int64 like `rows`."""
        every = torch.arange(len(self.indptr) - 1, device=self.rows.device)
        return every.repeat_interleave(self.lengths)

    def select(self, chosen: Tensor) -> RowLists:
        """The lists of the users `chosen`, int64 [C], in that order."""
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
    """The k items of largest inner product for each user, equal scores by lower row.

    Memory is B x K and one bounded block of scores, whatever the number of items.

    Args:
        user_BD: float32 [B, D].
        blocks: (first row, float32 [N, D]) of consecutive items, rows rising.
        k: answers wanted; may exceed the catalogue.
        seen: rows that must not be answered, by user.
        barred: int64, rows that must not be answered to anybody, rising.

    Returns:
        scores float32 [B, k] falling, rows int64 [B, k]; where a user has fewer than k
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
    """Take the scores of items `first`, `first` + 1, ... into the answers so far, in place.

    Few items of a later block can still enter, where they come by falling count: these are
    picked out by the k-th score so far instead of ranking the block.
    """
    k, least_B1 = best_Bk.shape[1], best_Bk[:, -1:]
    if bool((least_B1 == -torch.inf).any()):  # a first block
        _insert(best_Bk, rows_Bk, *_block_top_k(score_BN, k), first)
        return
    # Not <= instead of >: a score that is not a number must come through.
    user_M, column_M = torch.le(score_BN, least_B1).logical_not_().nonzero(as_tuple=True)
    count_B = torch.bincount(user_M, minlength=len(score_BN))
    widest = int(count_B.max()) if len(user_M) else 0
    if widest > k * _FEW:
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
    """Keep the k best of the answers so far and of a block's, in place."""
    k = best_Bk.shape[1]
    # Answers so far have lower rows: a stable sort keeps them ahead when equal.
    both, place = torch.cat((best_Bk, score_BK), 1).sort(dim=1, descending=True, stable=True)
    rows = torch.cat((rows_Bk, row_BK + first), 1).gather(1, place[:, :k])
    best_Bk.copy_(both[:, :k])
    rows_Bk.copy_(rows)


@dataclass(frozen=True)
class _Masks:
    """Seen pairs ordered by item, so that a block finds its own by bisection."""

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
    """Where rows first .. first + number - 1 begin and end in a rising list."""
    ends = torch.tensor([first, first + number], device=rows.device)
    low, high = torch.searchsorted(rows, ends).tolist()
    return low, high


def _block_top_k(score_BN: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The block's k best (fewer in a smaller block), equal scores by lower column."""
    n = score_BN.shape[1]
    if n <= k:
        return score_BN.sort(dim=1, descending=True, stable=True)
    # torch.topk picks any of equal scores. One answer more shows where that matters.
    score_BK, column_BK = score_BN.topk(k + 1, dim=1)
    tied = (score_BK[:, k] == score_BK[:, k - 1]) & (score_BK[:, k] > -torch.inf)
    column_Bk, order = column_BK[:, :k].sort(dim=1)
    score_Bk, place = score_BK[:, :k].gather(1, order).sort(dim=1, descending=True, stable=True)
    column_Bk = column_Bk.gather(1, place)
    for b in tied.nonzero()[:, 0].tolist():
        score_Bk[b], column_Bk[b] = _exact_row(score_BN[b], k, score_BK[b, k])
    return score_Bk, column_Bk


def _exact_row(score_N: Tensor, k: int, least: Tensor) -> tuple[Tensor, Tensor]:
    """One user's k best when several score `least`, the k-th: the lowest columns win."""
    above = (score_N > least).nonzero()[:, 0]
    equal = (score_N == least).nonzero()[: k - len(above), 0]
    column = torch.cat((above, equal))
    score, order = score_N[column].sort(descending=True, stable=True)
    return score, column[order]


def widths(k: int, seen: RowLists, items: int) -> Iterator[tuple[Tensor, int]]:
    """How many of a ranking's first answers hold k that a user has not seen.

    That is k and as many as the user has seen, rounded up to a power of two so that users
    can be asked for together, and at most the catalogue.

    Yields:
        users int64 [C] and their width; C * width is bounded.
    """
    exponent_B = torch.log2((k + seen.lengths).double()).ceil().long()
    for exponent in torch.unique(exponent_B).tolist():
        width = min(1 << exponent, items)
        users = (exponent_B == exponent).nonzero()[:, 0]
        for chosen in users.split(max(1, _ANSWERS // max(1, width))):
            yield chosen, width


def hits(rows_Bk: Tensor, relevant: RowLists) -> Tensor:
    """Whether each answered row is in its user's list, bool [B, k]; -1 never is."""
    if not relevant.rows.numel():
        return torch.zeros_like(rows_Bk, dtype=torch.bool)
    width = max(int(relevant.rows.max()), int(rows_Bk.max()) if rows_Bk.numel() else 0) + 1
    keys = (relevant.users() * width + relevant.rows).sort().values
    asked = torch.arange(len(rows_Bk), device=rows_Bk.device)[:, None] * width + rows_Bk
    place = torch.searchsorted(keys, asked).clamp_(max=len(keys) - 1)
    return (keys[place] == asked) & (rows_Bk >= 0)


def metric_sums(rows_Bk: Tensor, relevant: RowLists, ks: Sequence[int]) -> dict[str, float]:
    """Sums over users of the ranking metrics; divide by the number of users for means.

    Recall@k is hits over all relevant items, as in NGCF and LightGCN; NDCG@k has binary
    gains and discount 1 / log2(rank + 1), its ideal min(k, relevant) hits on top
    (Jarvelin and Kekalainen 2002); MRR@k is one over the rank of the first hit, 0 where
    none; hit rate is 1 with any hit. Users without relevant items add nothing.

    Args:
        rows_Bk: int64 [B, k] in order of rank, -1 where there is no answer.
        relevant: the items to find, by user.
        ks: cuts; one beyond the width of `rows_Bk` counts what is there.

    Returns:
        "recall@10" and so on for each cut, float64 sums.
    """
    return hit_sums(hits(rows_Bk, relevant), relevant.lengths, ks)


def hit_sums(hit_Bk: Tensor, count_B: Tensor, ks: Sequence[int]) -> dict[str, float]:
    """`metric_sums` of hits that are known already.

    Args:
        hit_Bk: bool [B, k] in order of rank; see `hits`.
        count_B: int64 [B], how many items each user's list has.
        ks: cuts.

    Returns:
        as `metric_sums`.
    """
    hit_Bk, width = hit_Bk.double(), hit_Bk.shape[1]
    ranks = torch.arange(1, max(width, *ks) + 1, dtype=torch.float64, device=hit_Bk.device)
    discount = 1.0 / torch.log2(ranks + 1)
    ideal = torch.cat((discount.new_zeros(1), discount.cumsum(0)))
    sums: dict[str, float] = {}
    for k in ks:
        hit = hit_Bk[:, :k]
        cut = min(k, width)
        found_B = hit.sum(1)
        best_B = ideal[count_B.clamp(max=k)]
        sums[f"recall@{k}"] = float((found_B / count_B.clamp(min=1)).sum())
        gain_B = (hit * discount[:cut]).sum(1)
        sums[f"ndcg@{k}"] = float((gain_B / best_B.clamp(min=1e-300)).sum())
        first_B = (hit / ranks[:cut]).amax(1) if cut else found_B
        sums[f"mrr@{k}"] = float(first_B.sum())
        sums[f"hit_rate@{k}"] = float((found_B > 0).sum())
    return sums
