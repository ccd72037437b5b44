"""Validation over the full catalogue while training.

Legend: B validation users here, N items of a block, D columns, M validation events here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from embedmill.pipeline.score import RowLists, metric_sums, top_k
from embedmill.pipeline.train.collectives import Group
from embedmill.pipeline.train.data.batches import Events
from embedmill.pipeline.train.losses import LossSettings
from embedmill.pipeline.train.objectives.smoothing import Smoothing
from embedmill.pipeline.train.plan import Layout, generator
from embedmill.pipeline.train.tables.embedding import ShardedEmbedding

__all__ = ["Validation", "rank", "rate", "validation"]

_BLOCK = 1 << 16  # item rows fetched at once
_EVENTS = 1 << 18  # rating events scored at once
CUT = 10


@dataclass(frozen=True)
class Validation:
    """Validation of the owned users: `seen` are their train items, `relevant` the others.

    `users` counts the users over all workers; 0 means that there is nothing to measure on.
    `barred` are the item rows, rising, that are no part of the catalogue; None: all are.
    """

    user_B: Tensor
    seen: RowLists
    relevant: RowLists
    events: Events
    users: int
    barred: Tensor | None = None


def validation(
    train: Events, valid: Events, layout: Layout, group: Group, *, limit: int, seed: int
) -> Validation:
    """Choose the users to validate on, the same for any number of workers.

    It goes by partition: a whole split may be most of the memory there is.

    Every partition gives at most its share of `limit`, drawn by the seed. A validation item
    that the user has in train is not to be found again; users with none left are not ranked.
    """
    drawn, seen, relevant, kept = [train.user_E[:0].long()], [], [], []
    for partition, known, held in zip(layout.owned, train.parts(), valid.parts(), strict=True):
        fresh = ~torch.isin(_pair(held), _pair(known))
        users = torch.unique(held.user_E[fresh]).long()
        share = (partition + 1) * limit // layout.partitions - (
            partition * limit // layout.partitions
        )
        order = torch.randperm(len(users), generator=generator(seed, "valid", partition))
        drawn.append(users[order[:share]])
        chosen = _of_users(held, drawn[-1], layout)
        seen.append(known.where(_of_users(known, drawn[-1], layout)))
        relevant.append(held.where(fresh & chosen))
        kept.append(held.where(chosen))
    user_B = torch.cat(drawn).sort().values
    number = torch.tensor([len(user_B)], device=group.device)
    return Validation(
        user_B,
        _lists(seen, user_B),
        _lists(relevant, user_B),
        _joined(kept),
        int(group.sum(number).item()),
    )


def rank(
    chosen: Validation,
    user_BD: Tensor,
    items: ShardedEmbedding,
    settings: LossSettings,
    smoothing: Smoothing | None = None,
) -> dict[str, float]:
    """Means over the validation users of recall, NDCG, MRR and hit rate at 10.

    `user_BD` are these users' rows. Seen items are masked; the items come by blocks, so memory
    does not grow with them, and smoothed, where they will be published so.
    """
    user_BD = _ready(user_BD.cpu(), settings)
    if settings.biased:
        user_BD[:, -1] = 1.0
    blocks = _blocks(items, settings, smoothing)
    _, rows_Bk = top_k(user_BD, blocks, CUT, chosen.seen, chosen.barred)
    sums = metric_sums(rows_Bk, chosen.relevant, [CUT])
    names = sorted(sums)
    totals = torch.tensor([sums[n] for n in names], dtype=torch.float64)
    totals = items.group.sum(totals.to(items.group.device)).cpu()
    return {name: float(totals[at]) / chosen.users for at, name in enumerate(names)}


def rate(
    chosen: Validation, users: ShardedEmbedding, items: ShardedEmbedding, *, mean: float
) -> dict[str, float]:
    """Root mean squared and mean absolute error of the ratings of the validation users."""
    events, group = chosen.events, users.group
    totals = torch.zeros(3, dtype=torch.float64)
    # As many rounds at every worker: each is a collective.
    for at in range(group.max(-(-len(events) // _EVENTS))):
        part = slice(at * _EVENTS, (at + 1) * _EVENTS)
        rows_V, item_M = torch.unique(events.item_E[part].to(group.device), return_inverse=True)
        item_MD = items.fetch(rows_V)[0][item_M]
        user_MD = users.weight.detach()[users.local(events.user_E[part].to(group.device))]
        inner_M = (user_MD[:, :-1] * item_MD[:, :-1]).sum(1)
        rated_M = mean + user_MD[:, -1] + item_MD[:, -1] + inner_M
        error_M = (rated_M.cpu() - events.weight_E[part]).double()
        totals[0] += error_M.square().sum()
        totals[1] += error_M.abs().sum()
        totals[2] += len(error_M)
    totals = group.sum(totals.to(group.device)).cpu()
    squared, absolute, number = totals.tolist()
    return {"rmse": math.sqrt(squared / number), "mae": absolute / number}


def _blocks(
    items: ShardedEmbedding, settings: LossSettings, smoothing: Smoothing | None
) -> Iterator[tuple[int, Tensor]]:
    for start in range(0, items.rows, _BLOCK):
        rows = torch.arange(start, min(start + _BLOCK, items.rows), device=items.group.device)
        item_ND = _ready(items.fetch(rows)[0].cpu(), settings)
        if smoothing is not None:
            added_ND = smoothing.added(start, start + len(rows)).cpu()
            item_ND[:, : added_ND.shape[1]] += added_ND
        yield start, item_ND


def _ready(rows_ND: Tensor, settings: LossSettings) -> Tensor:
    """Rows whose inner products rank as the loss does."""
    if settings.similarity != "cosine":
        return rows_ND
    end = rows_ND.shape[1] - int(settings.biased)
    return torch.cat([functional.normalize(rows_ND[:, :end]), rows_ND[:, end:]], 1)


def _pair(events: Events) -> Tensor:
    # Rows are dense, so both fit into one number.
    return (events.user_E.long() << 32) + events.item_E


def _of_users(events: Events, users: Tensor, layout: Layout) -> Tensor:
    """Which events of one partition are of these of its users."""
    place_M = events.user_E // layout.partitions
    flags = torch.zeros(int(place_M.max()) + 1 if len(place_M) else 0, dtype=torch.bool)
    place_U = users // layout.partitions
    flags[place_U[place_U < len(flags)]] = True
    return flags[place_M]


def _joined(parts: list[Events]) -> Events:
    columns = [(part.user_E.long(), part.item_E.long(), part.weight_E) for part in parts]
    nothing = torch.empty(0, dtype=torch.int64), torch.empty(0, dtype=torch.int64), torch.empty(0)
    user_M, item_M, weight_M = (torch.cat(c) for c in zip(nothing, *columns, strict=True))
    return Events(user_M, item_M, weight_M, ())


def _lists(parts: list[Events], user_B: Tensor) -> RowLists:
    events = _joined(parts)
    return RowLists.of(torch.searchsorted(user_B, events.user_E), events.item_E, len(user_B))
