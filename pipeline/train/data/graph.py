"""The events as a graph of users and items: sums of neighbours' vectors, by degree.

An edge of vote v between a user and an item of degrees d and e (sums of votes) has weight
v d^-a e^-b. Users stay with their events, so that only sums by item travel; items are taken a
block at a time, and memory does not grow with the catalogue.

Legend: L user rows held here, I items, N items of a block, M edges at hand, D columns.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional

from embedmill.pipeline.train.collectives import Group
from embedmill.pipeline.train.data.batches import Events, Votes
from embedmill.pipeline.train.tables.embedding import ShardedEmbedding

__all__ = ["Graph", "blocks", "held"]

_ROWS = 1 << 16  # items of a block
_EDGES = 1 << 16  # edges whose vectors are at hand at once


def blocks(rows: int) -> Iterator[tuple[int, int]]:
    """First and one past the last row of each block of a table."""
    for first in range(0, rows, _ROWS):
        yield first, min(rows, first + _ROWS)


def held(table: ShardedEmbedding, first: int, last: int) -> Tensor:
    """The rows first .. last - 1 that this worker holds, rising, int64."""
    rows = torch.arange(first, last, device=table.group.device)
    return rows[table.layout.owner(rows) == table.group.rank]


@dataclass(frozen=True)
class Graph:
    """The graph, and both tables, of which the first `dim` columns are the vectors.

    `user_L` and `item_I` are what edges are multiplied by: at first the degrees, after `scaled`
    negative powers of them. Its sums are collectives.
    """

    events: Events
    votes: Votes
    users: ShardedEmbedding
    items: ShardedEmbedding
    user_L: Tensor
    item_I: Tensor
    dim: int

    @staticmethod
    def of(
        events: Events, votes: Votes, users: ShardedEmbedding, items: ShardedEmbedding, dim: int
    ) -> Graph:
        """The graph of the events of all workers, with its degrees; every worker calls it."""
        group, offset_P = users.group, users.offset_P.cpu()
        user_L = torch.zeros(users.weight.shape[0], dtype=torch.float64)
        item_I = torch.zeros(items.rows, dtype=torch.float64)
        for partition, part in zip(users.layout.owned, events.parts(), strict=True):
            vote_M = votes.of(part.weight_E).double()
            user_M = part.user_E.long() // users.layout.partitions
            user_L.index_add_(0, user_M + int(offset_P[partition]), vote_M)
            item_I.index_add_(0, part.item_E.long(), vote_M)
        item_I = group.sum(item_I.to(group.device))
        degree_L = user_L.float().to(group.device)
        return Graph(events, votes, users, items, degree_L, item_I.float(), dim)

    def scaled(self, user_power: float, item_power: float) -> Graph:
        """The same with the degrees to these powers, negative; 0 for a degree of 0."""
        user_L, item_I = (
            torch.where(degree > 0, degree**-power, 0.0)
            for degree, power in ((self.user_L, user_power), (self.item_I, item_power))
        )
        return replace(self, user_L=user_L, item_I=item_I)

    @property
    def group(self) -> Group:
        """The workers that the graph lies with."""
        return self.users.group

    def at_items(self, first: int, last: int, *, unit: bool = False) -> Tensor:
        """For each item of a block the sum of its users' vectors, float32 [N, D].

        Args:
            first: the block's first item.
            last: one past its last.
            unit: scale the users' vectors to length one first.
        """
        sum_ND = self.users.weight.new_zeros((last - first, self.dim))
        vectors_LD = self.users.weight.detach()[:, : self.dim]
        for user_M, item_M, edge_M in self._edges(first, last):
            user_MD = vectors_LD[user_M]
            if unit:
                user_MD = functional.normalize(user_MD)
            sum_ND.index_add_(0, item_M - first, user_MD.mul_(edge_M[:, None]))
        return self.group.sum(sum_ND)

    def set_users(self) -> None:
        """Make every user's vector the sum of its items' vectors."""
        vectors_LD = self.users.weight.detach()[:, : self.dim]
        vectors_LD.zero_()
        for first, last in blocks(self.items.rows):
            rows = torch.arange(first, last, device=self.group.device)
            item_ND = self.items.fetch(rows)[0][:, : self.dim]
            for user_M, item_M, edge_M in self._edges(first, last):
                item_MD = item_ND[item_M - first].mul_(edge_M[:, None])
                vectors_LD.index_add_(0, user_M, item_MD)

    def set_items(self) -> None:
        """Make every item's vector the sum of its users' vectors."""
        vectors_LD = self.items.weight.detach()[:, : self.dim]
        for first, last in blocks(self.items.rows):
            sum_ND = self.at_items(first, last)
            own = held(self.items, first, last)
            vectors_LD[self.items.local(own)] = sum_ND[own - first]

    def _edges(self, first: int, last: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Local row of the user, item and weight of the edges held here into a block of items."""
        device = self.group.device
        for start in range(0, len(self.events), _EDGES):
            part = slice(start, start + _EDGES)
            item_M = self.events.item_E[part].long()
            kept_M = (item_M >= first) & (item_M < last)
            item_M = item_M[kept_M].to(device)
            user_M = self.users.local(self.events.user_E[part][kept_M].long().to(device))
            vote_M = self.votes.of(self.events.weight_E[part][kept_M]).to(device)
            yield user_M, item_M, vote_M * self.user_L[user_M] * self.item_I[item_M]
