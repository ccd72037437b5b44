"""The events as a graph of users and items: sums of neighbours' vectors, scaled by degree.

An edge of sample weight w between a user of degree d and an item of degree e (sums of sample
weights) has weight w d^-a e^-b. Users are owned where their events are, so only sums by item
are exchanged; items are taken one block at a time, so memory does not grow with the catalogue.

Legend: L rows of this worker, I items, N items of a block, M edges taken together,
D columns.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional

from embedmill.pipeline.train.collectives import Group
from embedmill.pipeline.train.data.sample_weights import SampleWeights
from embedmill.pipeline.train.data.train_events import Events
from embedmill.pipeline.train.tables.embedding import ShardedEmbedding

__all__ = ["EventGraph", "anywhere", "owned_rows", "row_blocks"]

_ROWS = 1 << 16  # items of a block
_EDGES = 1 << 16  # edges whose vectors are in memory at once


def row_blocks(rows: int) -> Iterator[tuple[int, int]]:
    """First row of each block of a table, and one past its last."""
    for first in range(0, rows, _ROWS):
        yield first, min(rows, first + _ROWS)


def owned_rows(table: ShardedEmbedding, first: int, last: int) -> Tensor:
    """The rows from `first` to `last` - 1 that this worker owns, ascending, int64."""
    rows = torch.arange(first, last, device=table.group.device)
    return rows[table.layout.owner(rows) == table.group.rank]


def anywhere(table: ShardedEmbedding, chosen_L: Tensor) -> Tensor:
    """Which rows of all workers are chosen, bool [I], by those of this one; a collective."""
    own = owned_rows(table, 0, table.rows)
    chosen_I = torch.zeros(table.rows, device=table.group.device)
    chosen_I[own] = chosen_L[table.local_index(own)].float()
    return table.group.sum(chosen_I) > 0


@dataclass(frozen=True)
class EventGraph:
    """The graph and both tables, whose first `dim` columns are the vectors.

    Edges are multiplied by `user_L` and `item_I`: the degrees in a new graph, negative powers
    of them after `scaled`. Methods that sum over neighbours are collectives.
    """

    events: Events
    sample_weights: SampleWeights
    users: ShardedEmbedding
    items: ShardedEmbedding
    user_L: Tensor
    item_I: Tensor
    dim: int

    @staticmethod
    def of(
        events: Events,
        sample_weights: SampleWeights,
        users: ShardedEmbedding,
        items: ShardedEmbedding,
        dim: int,
    ) -> EventGraph:
        """The graph of the events of all workers, with its degrees; a collective.

        Args:
            events: of the owned partitions.
            sample_weights: of the events.
            users: table of the users.
            items: table of the items.
            dim: columns of the vectors; a bias may follow them.
        """
        group, offset_P = users.group, users.offset_P.cpu()
        user_L = torch.zeros(users.weight.shape[0], dtype=torch.float64)
        item_I = torch.zeros(items.rows, dtype=torch.float64)
        for partition, part in zip(users.layout.owned, events.partitions(), strict=True):
            weight_M = sample_weights.of(part.weight_E).double()
            user_M = part.user_E.long() // users.layout.partitions
            user_L.index_add_(0, user_M + int(offset_P[partition]), weight_M)
            item_I.index_add_(0, part.item_E.long(), weight_M)
        item_I = group.sum(item_I.to(group.device))
        degree_L = user_L.float().to(group.device)
        return EventGraph(events, sample_weights, users, items, degree_L, item_I.float(), dim)

    def scaled(self, user_power: float, item_power: float) -> EventGraph:
        """The graph with edges times degree ** -power on either side; 0 for a degree of 0."""
        user_L, item_I = (
            torch.where(degree > 0, degree**-power, 0.0)
            for degree, power in ((self.user_L, user_power), (self.item_I, item_power))
        )
        return replace(self, user_L=user_L, item_I=item_I)

    def own_items(self, value_I: Tensor) -> Tensor:
        """Values of the items that this worker owns, by position in its table, [L]."""
        own = owned_rows(self.items, 0, self.items.rows)
        value_L = torch.empty_like(value_I[: len(own)])
        return value_L.index_copy_(0, self.items.local_index(own), value_I[own])

    @property
    def group(self) -> Group:
        """The workers that hold the graph."""
        return self.users.group

    def item_sums(
        self, first: int, last: int, *, normalize: bool = False, chosen_I: Tensor | None = None
    ) -> Tensor:
        """For each item of a block the sum of its users' vectors, float32 [N, D].

        Args:
            first: the block's first item.
            last: one past its last item.
            normalize: scale the users' vectors to length one first.
            chosen_I: the items whose sums are wanted, the same at every worker; None for all.
        """
        sum_ND = self.users.weight.new_zeros((last - first, self.dim))
        vectors_LD = self.users.weight.detach()[:, : self.dim]
        for user_M, item_M, edge_M in self.edges(first, last):
            if chosen_I is not None:
                mine_M = chosen_I[item_M]
                user_M, item_M, edge_M = user_M[mine_M], item_M[mine_M], edge_M[mine_M]
            user_MD = vectors_LD[user_M]
            if normalize:
                user_MD = functional.normalize(user_MD)
            sum_ND.index_add_(0, item_M - first, user_MD.mul_(edge_M[:, None]))
        return self.group.sum(sum_ND)

    def set_users(self) -> None:
        """Set every user's vector to the sum of its items' vectors."""
        vectors_LD = self.users.weight.detach()[:, : self.dim]
        vectors_LD.zero_()
        for first, last in row_blocks(self.items.rows):
            rows = torch.arange(first, last, device=self.group.device)
            item_ND = self.items.fetch(rows)[0][:, : self.dim]
            for user_M, item_M, edge_M in self.edges(first, last):
                item_MD = item_ND[item_M - first].mul_(edge_M[:, None])
                vectors_LD.index_add_(0, user_M, item_MD)

    def set_items(self) -> None:
        """Set every item's vector to the sum of its users' vectors."""
        vectors_LD = self.items.weight.detach()[:, : self.dim]
        for first, last in row_blocks(self.items.rows):
            sum_ND = self.item_sums(first, last)
            own = owned_rows(self.items, first, last)
            vectors_LD[self.items.local_index(own)] = sum_ND[own - first]

    def edges(self, first: int, last: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """This worker's edges into a block of items: local user, item row and edge weight."""
        device = self.group.device
        for start in range(0, len(self.events), _EDGES):
            chunk = slice(start, start + _EDGES)
            item_M = self.events.item_E[chunk].long()
            in_block_M = (item_M >= first) & (item_M < last)
            item_M = item_M[in_block_M].to(device)
            user_M = self.events.user_E[chunk][in_block_M].long().to(device)
            user_M = self.users.local_index(user_M)
            weight_M = self.sample_weights.of(self.events.weight_E[chunk][in_block_M]).to(device)
            yield user_M, item_M, weight_M * self.user_L[user_M] * self.item_I[item_M]
