"""Thresholds of SL@K: by user, an estimate of the score of its K-th best item.

They weigh the events of a step (see `losses.row_gradients.threshold_weights`). They are computed
anew at the start of every few epochs, and are kept in the state of the users' table, so that a
training that resumes has those that it had.

Legend: B users of a block, N sampled items or scores, M events of these users, V distinct items,
D columns, k best items of a user.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

from embedmill.pipeline.score import RowLists, top_k
from embedmill.pipeline.train.data.train_events import Events
from embedmill.pipeline.train.model import Model
from embedmill.pipeline.train.plan import Layout, TrainingSize, generator
from embedmill.pipeline.train.runtime import Runtime
from embedmill.pipeline.train.training_data import TrainingData
from embedmill.pipeline.train.validation import ranking_rows

__all__ = ["THRESHOLD", "set_thresholds", "threshold_bytes", "threshold_widths"]

THRESHOLD = "threshold"
_SAMPLED = 1000  # items, as in the paper
_USERS = 1 << 14  # of a block
_PAIRS = 1 << 16  # whose vectors are in memory at once

_Block = tuple[slice, Tensor | None, Events]


def threshold_widths() -> dict[str, int]:
    """Width of the tensor of state that a table has for it; that of the items stays 0."""
    return {THRESHOLD: 1}


def set_thresholds(model: Model, data: TrainingData, runtime: Runtime, epoch: int) -> None:
    """Set the threshold of each user, in the state of the users' table; a collective.

    It is the K-th greatest score of the user's train items and a sample of the others, which is
    drawn anew for each epoch and the same for all users (SL@K: Yang et al., KDD 2025, arXiv
    2508.05673); of fewer than K, the least. A sampled item counts as many times as there are items
    for one of the sample, so that the K-th of the whole catalogue is estimated; the authors' code
    counts it once.

    Args:
        model: the tables.
        data: its events, and the items that may be drawn.
        runtime: the config with K, the seed, and the workers.
        epoch: number of the epoch that begins.
    """
    group, items, settings = runtime.group, model.items.embedding, model.settings
    source = generator(runtime.seed, THRESHOLD, epoch)
    sampled_N = data.negatives.sample(_SAMPLED, source)
    each = data.negatives.candidates / max(1, len(sampled_N))
    sampled_ND = ranking_rows(items.fetch(group.to_device(sampled_N))[0], settings)
    blocks, empty = [*_user_blocks(model, data.events, runtime.layout)], data.events.empty()
    # As many rounds at every worker: each is a collective.
    for at in range(group.max(len(blocks))):
        span, user_M, events = blocks[at]() if at < len(blocks) else (slice(0), None, empty)
        item_V, item_M = torch.unique(events.item_E.long(), return_inverse=True)
        item_VD = ranking_rows(items.fetch(group.to_device(item_V))[0], settings)
        if user_M is None:
            continue
        user_BD = ranking_rows(model.users.weight[span], settings)
        if settings.biased:
            user_BD[:, -1] = 1.0
        own = _among(user_M, events.item_E.long(), sampled_N, len(user_BD))
        best_Bk, _ = top_k(user_BD, [(0, sampled_ND)], runtime.config.top_k, own)
        user_M = group.to_device(user_M)
        score_M = _pair_scores(user_BD, item_VD, user_M, group.to_device(item_M))
        found_B = _kth_greatest(best_Bk, each, user_M, score_M)
        model.users.state[THRESHOLD][span, 0] = found_B


def threshold_bytes(size: TrainingSize, k: int, row_bytes: int) -> int:
    """Memory in which thresholds are set, beside the tables.

    Args:
        size: rows and examples of the training.
        k: of the K-th best item.
        row_bytes: of a row of a table.
    """
    users = min(_USERS, size.users)
    events = -(-users * size.train // max(1, size.users))
    rows = 2 * (users + min(events, size.items) + _SAMPLED)  # as they are, and normalized
    return rows * row_bytes + 4 * users * (_SAMPLED + 8 * k) + 40 * events


def _user_blocks(model: Model, events: Events, layout: Layout) -> Iterator[Callable[[], _Block]]:
    """Blocks of this worker's users: where they are in the table, and their events.

    Each is a slice of local rows, the users of the events, counted within it, and the events.
    """
    for partition, part in zip(layout.owned, events.partitions(), strict=True):
        whole = model.users.embedding.partition_slice(partition)
        for start in range(whole.start, whole.stop, _USERS):
            span = slice(start, min(start + _USERS, whole.stop))
            yield partial(_block, span, start - whole.start, part, layout.partitions)


def _block(span: slice, first: int, events: Events, partitions: int) -> _Block:
    user_N = events.user_E.long() // partitions - first
    mine_N = (user_N >= 0) & (user_N < span.stop - span.start)
    return span, user_N[mine_N], events.select(mine_N)


def _pair_scores(user_BD: Tensor, item_VD: Tensor, user_M: Tensor, item_M: Tensor) -> Tensor:
    """Inner products of pairs, some of them at a time, float32 [M]."""
    score_M = user_BD.new_empty(len(user_M))
    for start in range(0, len(user_M), _PAIRS):
        part = slice(start, start + _PAIRS)
        user_PD, item_PD = user_BD[user_M[part]], item_VD[item_M[part]]
        torch.linalg.vecdot(user_PD, item_PD, out=score_M[part])
    return score_M


def _among(user_M: Tensor, item_M: Tensor, sampled_N: Tensor, users: int) -> RowLists:
    """Which sampled items are the users' own, as positions in the sample."""
    at_M = torch.searchsorted(sampled_N, item_M).clamp_(max=len(sampled_N) - 1)
    own_M = sampled_N[at_M] == item_M
    return RowLists.of(user_M[own_M], at_M[own_M], users)


def _kth_greatest(best_Bk: Tensor, each: float, user_M: Tensor, score_M: Tensor) -> Tensor:
    """The k-th greatest score of each user, or the least of fewer, float32 [B].

    Args:
        best_Bk: a user's k best of the sampled items; -inf where there are fewer.
        each: how many items one of these stands for.
        user_M: users of its own items.
        score_M: scores of its own items.
    """
    users, k = best_Bk.shape
    row_N = torch.arange(users, device=best_Bk.device).repeat_interleave(k)
    count_N = torch.cat([score_M.new_full((len(row_N),), each), torch.ones_like(score_M)]).double()
    row_N, score_N = torch.cat([row_N, user_M]), torch.cat([best_Bk.reshape(-1), score_M])
    found_N = torch.nonzero(score_N > -torch.inf)[:, 0]
    order_N = found_N[torch.argsort(score_N[found_N], descending=True)]
    order_N = order_N[torch.argsort(row_N[order_N], stable=True)]
    row_N, score_N = row_N[order_N], score_N[order_N]
    # Items up to each place of a user's: fewer than k of them are above the threshold.
    upto_N = count_N[order_N].cumsum(0)
    size_B = torch.bincount(row_N, minlength=users)
    end_B = size_B.cumsum(0)
    before_B = torch.cat([upto_N.new_zeros(1), upto_N])[end_B - size_B]
    above_N = (upto_N - before_B[row_N]) < k - 1e-6
    above_B = torch.zeros_like(size_B).index_add_(0, row_N, above_N.long())
    place_B = end_B - size_B + torch.minimum(above_B, size_B - 1)
    return score_N[place_B.clamp_(min=0)]
