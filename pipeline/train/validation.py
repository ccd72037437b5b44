"""Validation while training: ranking of the whole catalogue, or errors of predicted ratings.

Legend: B validation users of this worker, N items of a block, D columns, M validation events
of this worker.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from embedmill.pipeline.ranking_metrics import metric_sums
from embedmill.pipeline.score import RowLists, are_among, top_k
from embedmill.pipeline.train.collectives import Group
from embedmill.pipeline.train.data.train_events import Events
from embedmill.pipeline.train.graph.smoothing import Smoothing
from embedmill.pipeline.train.losses import LossSettings
from embedmill.pipeline.train.model import RankingVectors
from embedmill.pipeline.train.plan import Layout, generator
from embedmill.pipeline.train.tables.embedding import ShardedEmbedding

__all__ = ["Validation", "choose_validation", "ranking_metrics", "ranking_rows", "rating_errors"]

_BLOCK = 1 << 16  # item rows fetched together
_EVENTS = 1 << 18  # rating events scored together
_CUTOFF = 10


@dataclass(frozen=True)
class Validation:
    """What validation needs of the users that this worker owns.

    Args:
        user_B: rows of the users, ascending.
        seen: their train items, which are not ranked.
        relevant: their validation items that are not in `seen`.
        events: all their validation events.
        users: number of users over all workers; 0: there is nothing to validate on.
        inactive: rows of items that are not ranked, ascending; None where all are.
    """

    user_B: Tensor
    seen: RowLists
    relevant: RowLists
    events: Events
    users: int
    inactive: Tensor | None = None


def choose_validation(
    known: Events,
    valid: Events,
    layout: Layout,
    group: Group,
    *,
    limit: int,
    seed: int,
    inactive: Tensor | None = None,
) -> Validation:
    """Choose the users to validate on, the same for any number of workers; a collective.

    Every partition gives at most its share of `limit` users, drawn by the seed. A validation
    item that the user has in train does not count; users without any other are not chosen.
    Partitions are worked on one by one: a whole split may take most of the memory.

    Args:
        known: train events of the owned partitions.
        valid: their validation events.
        layout: which partitions this worker owns.
        group: the workers.
        limit: at most so many users.
        seed: the run's seed.
        inactive: rows of items that are not ranked, ascending; None where all are.
    """
    drawn, seen, relevant, kept = [known.user_E[:0].long()], [], [], []
    for partition, train_N, valid_N in zip(
        layout.owned, known.partitions(), valid.partitions(), strict=True
    ):
        new = ~are_among(_pair_keys(valid_N), _pair_keys(train_N))
        users = torch.unique(valid_N.user_E[new]).long()
        share = (partition + 1) * limit // layout.partitions - (
            partition * limit // layout.partitions
        )
        order = torch.randperm(len(users), generator=generator(seed, "valid", partition))
        drawn.append(users[order[:share]])
        chosen = _is_of_users(valid_N, drawn[-1], layout)
        seen.append(train_N.select(_is_of_users(train_N, drawn[-1], layout)))
        relevant.append(valid_N.select(new & chosen))
        kept.append(valid_N.select(chosen))
    user_B = torch.cat(drawn).sort().values
    number = torch.tensor([len(user_B)], device=group.device)
    return Validation(
        user_B,
        _item_lists(seen, user_B),
        _item_lists(relevant, user_B),
        _concatenated(kept),
        int(group.sum(number).item()),
        inactive,
    )


def ranking_metrics(validation: Validation, vectors: RankingVectors) -> dict[str, float]:
    """Means over the validation users of recall, NDCG, MRR and hit rate at 10; a collective.

    Seen items are not ranked. Items are fetched in blocks, so memory does not grow with the
    catalogue; they are smoothed where the published ones will be.

    Args:
        validation: the users and their items.
        vectors: the vectors of `validation.user_B`, and the items.
    """
    items, settings = vectors.items, vectors.settings
    user_BD = ranking_rows(vectors.user_BD.cpu(), settings)
    if settings.biased:
        user_BD[:, -1] = 1.0
    blocks = _item_blocks(items, settings, vectors.smoothing)
    _, rows_Bk = top_k(user_BD, blocks, _CUTOFF, validation.seen, validation.inactive)
    sums = metric_sums(rows_Bk, validation.relevant, [_CUTOFF])
    names = sorted(sums)
    totals = torch.tensor([sums[n] for n in names], dtype=torch.float64)
    totals = items.group.sum(totals.to(items.group.device)).cpu()
    return {name: float(totals[at]) / validation.users for at, name in enumerate(names)}


def rating_errors(
    validation: Validation, users: ShardedEmbedding, items: ShardedEmbedding, settings: LossSettings
) -> dict[str, float]:
    """Root mean squared and mean absolute error of the validation users' ratings; a collective.

    Args:
        validation: the users and their ratings.
        users: table of the users; the last column is the bias.
        items: table of the items, likewise.
        settings: mean and standard deviation of the train ratings.
    """
    events, group = validation.events, users.group
    totals = torch.zeros(3, dtype=torch.float64)
    # Every worker goes through as many rounds: each round is a collective.
    for at in range(group.max(-(-len(events) // _EVENTS))):
        chunk = slice(at * _EVENTS, (at + 1) * _EVENTS)
        rows_V, item_M = torch.unique(events.item_E[chunk].to(group.device), return_inverse=True)
        item_MD = items.fetch(rows_V)[0][item_M]
        user_M = users.local_index(events.user_E[chunk].to(group.device))
        user_MD = users.weight.detach()[user_M]
        inner_M = (user_MD[:, :-1] * item_MD[:, :-1]).sum(1)
        deviation_M = user_MD[:, -1] + item_MD[:, -1] + inner_M
        predicted_M = settings.mean + settings.deviation * deviation_M
        error_M = (predicted_M.cpu() - events.weight_E[chunk]).double()
        totals[0] += error_M.square().sum()
        totals[1] += error_M.abs().sum()
        totals[2] += len(error_M)
    totals = group.sum(totals.to(group.device)).cpu()
    squared, absolute, number = totals.tolist()
    return {"rmse": math.sqrt(squared / number), "mae": absolute / number}


def _item_blocks(
    items: ShardedEmbedding, settings: LossSettings, smoothing: Smoothing | None
) -> Iterator[tuple[int, Tensor]]:
    """First row and rows [N, D] of each block of items."""
    for start in range(0, items.rows, _BLOCK):
        rows = torch.arange(start, min(start + _BLOCK, items.rows), device=items.group.device)
        item_ND = ranking_rows(items.fetch(rows)[0].cpu(), settings)
        if smoothing is not None:
            added_ND = smoothing.added(start, start + len(rows)).cpu()
            item_ND[:, : added_ND.shape[1]] += added_ND
        yield start, item_ND


def ranking_rows(rows_ND: Tensor, settings: LossSettings) -> Tensor:
    """Rows whose inner products rank as the loss does."""
    if settings.similarity != "cosine":
        return rows_ND
    end = rows_ND.shape[1] - int(settings.biased)
    return torch.cat([functional.normalize(rows_ND[:, :end]), rows_ND[:, end:]], 1)


def _pair_keys(events: Events) -> Tensor:
    """One number for each pair of user and item: both rows fit into 64 bits."""
    return (events.user_E.long() << 32) + events.item_E


def _is_of_users(events: Events, users: Tensor, layout: Layout) -> Tensor:
    """Mask of one partition's events: whether their user is one of `users`."""
    position_N = events.user_E // layout.partitions
    flags = torch.zeros(int(position_N.max()) + 1 if len(position_N) else 0, dtype=torch.bool)
    position_U = users // layout.partitions
    flags[position_U[position_U < len(flags)]] = True
    return flags[position_N]


def _concatenated(parts: list[Events]) -> Events:
    columns = [(part.user_E.long(), part.item_E.long(), part.weight_E) for part in parts]
    nothing = torch.empty(0, dtype=torch.int64), torch.empty(0, dtype=torch.int64), torch.empty(0)
    user_M, item_M, weight_M = (torch.cat(c) for c in zip(nothing, *columns, strict=True))
    return Events(user_M, item_M, weight_M, ())


def _item_lists(parts: list[Events], user_B: Tensor) -> RowLists:
    events = _concatenated(parts)
    return RowLists.of(torch.searchsorted(user_B, events.user_E), events.item_E, len(user_B))
