"""The events as a sparse matrix of users and items, and its products with both tables.

A worker has the rows of its users. They are cut into tiles of some users and some items, each
kept in compressed rows in both orientations, so that both products read rows of a table in
order, on all threads of the worker. Beside the tiles, a product needs the rows of the items of
one tile, whatever the size of the catalogue.

Legend: L user rows of this worker, I items, U users and N items of a tile, M events of a tile,
E events of this worker, D columns.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from embedmill.pipeline.train.graph.event_graph import EventGraph, owned_rows
from embedmill.pipeline.train.tables.embedding import ShardedEmbedding

__all__ = ["EVENT_BYTES", "TILE_ROWS", "EventMatrix"]

TILE_ROWS = 1 << 16  # users and items of a tile, at most
# Of an event: both orientations of the matrix, and what they are made from.
EVENT_BYTES = 56


@dataclass(frozen=True)
class Tile:
    """Events of some users with some items, as sparse matrices [U, N] and, if asked for, [N, U]."""

    users: slice
    by_user_UN: Tensor
    by_item_NU: Tensor | None


@dataclass(frozen=True)
class EventMatrix:
    """The scaled sample weights of the events; `tiles` has a list for each block of items.

    Its products are collectives. They read one table and set the other, in the first `dim`
    columns.
    """

    users: ShardedEmbedding
    items: ShardedEmbedding
    tiles: list[list[Tile]]
    dim: int

    @staticmethod
    def of(graph: EventGraph, *, sets_items: bool = True) -> EventMatrix:
        """The matrix of a scaled graph, whose edge weights are its entries.

        Args:
            graph: the events and both tables; several events of a pair are added up.
            sets_items: whether the product that sets the items will be asked for.
        """
        users, items = graph.users, graph.items
        events = graph.events
        local_E = users.local_index(events.user_E.long().to(users.group.device)).cpu()
        across = -(-max(1, items.rows) // TILE_ROWS)
        down = -(-max(1, len(users.weight)) // TILE_ROWS)
        tile_E = (events.item_E // TILE_ROWS) * down + local_E // TILE_ROWS
        order_E = torch.argsort(tile_E, stable=True)
        stop = torch.bincount(tile_E, minlength=across * down).cumsum(0).tolist()
        del tile_E
        tiles: list[list[Tile]] = [[] for _ in range(across)]
        for at, (start, end) in enumerate(pairwise([0, *stop])):
            if end > start:
                chosen_M = order_E[start:end]
                block, part = divmod(at, down)
                place = (part, block)
                tile = _tile(graph, local_E[chosen_M], chosen_M, place, sets_items=sets_items)
                tiles[block].append(tile)
        return EventMatrix(users, items, tiles, graph.dim)

    def squared_norm(self) -> float:
        """The sum of the squared entries over all workers; a collective."""
        total = torch.zeros(1, dtype=torch.float64, device=self.users.group.device)
        for tile in (tile for block in self.tiles for tile in block):
            total += tile.by_user_UN.values().double().square().sum()
        return float(self.users.group.sum(total).item())

    def set_users(self) -> None:
        """Set every user's vector to the sum of its items' vectors, times the entries."""
        vectors_LD = self.users.weight.detach()[:, : self.dim]
        vectors_LD.zero_()
        for first, last, tiles in self._blocks():
            rows = torch.arange(first, last, device=self.items.group.device)
            item_ND = self.items.fetch(rows)[0][:, : self.dim].contiguous()
            for tile in tiles:
                vectors_LD[tile.users] += tile.by_user_UN @ item_ND

    def set_items(self) -> None:
        """Set every item's vector to the sum of its users' vectors, times the entries."""
        group, vectors_LD = self.items.group, self.items.weight.detach()[:, : self.dim]
        user_LD = self.users.weight.detach()[:, : self.dim]
        for first, last, tiles in self._blocks():
            sum_ND = vectors_LD.new_zeros((last - first, self.dim))
            for tile in tiles:
                assert tile.by_item_NU is not None, "made with sets_items=False"
                sum_ND += tile.by_item_NU @ user_LD[tile.users]
            group.sum(sum_ND)
            own = owned_rows(self.items, first, last)
            vectors_LD[self.items.local_index(own)] = sum_ND[own - first]

    def _blocks(self) -> Iterator[tuple[int, int, list[Tile]]]:
        """First item of each block, one past its last, and this worker's tiles."""
        for block, tiles in enumerate(self.tiles):
            first = block * TILE_ROWS
            yield first, min(self.items.rows, first + TILE_ROWS), tiles


def _tile(
    graph: EventGraph,
    local_M: Tensor,
    chosen_M: Tensor,
    place: tuple[int, int],
    *,
    sets_items: bool,
) -> Tile:
    """A tile of events.

    Args:
        graph: with all events.
        local_M: their users in this worker's table.
        chosen_M: which events.
        place: number of the block of users, and of that of items.
        sets_items: whether the matrix is needed by item, too.
    """
    part, block = place
    events, device = graph.events, graph.group.device
    item_M = events.item_E[chosen_M].long()
    weight_M = graph.sample_weights.of(events.weight_E[chosen_M]).to(device)
    weight_M = weight_M * graph.user_L[local_M.to(device)] * graph.item_I[item_M.to(device)]
    first_user, first_item = part * TILE_ROWS, block * TILE_ROWS
    last_user = min(len(graph.users.weight), first_user + TILE_ROWS)
    users, items = last_user - first_user, min(graph.items.rows - first_item, TILE_ROWS)
    rows = (local_M - first_user).to(device), (item_M - first_item).to(device)
    return Tile(
        slice(first_user, last_user),
        _compressed(rows[0], rows[1], weight_M, (users, items)),
        _compressed(rows[1], rows[0], weight_M, (items, users)) if sets_items else None,
    )


def _compressed(row_M: Tensor, column_M: Tensor, value_M: Tensor, size: tuple[int, int]) -> Tensor:
    """A sparse matrix in compressed rows; values of the same place are added up."""
    key_M, entry_M = torch.unique(row_M * size[1] + column_M, return_inverse=True)
    summed_M = torch.zeros(len(key_M), dtype=torch.float64, device=value_M.device)
    summed_M.index_add_(0, entry_M, value_M.double())
    start = torch.zeros(size[0] + 1, dtype=torch.int32, device=value_M.device)
    start[1:] = torch.bincount(key_M // size[1], minlength=size[0]).cumsum(0)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse", UserWarning)  # "CSR is in beta state"
        return torch.sparse_csr_tensor(
            start, (key_M % size[1]).int(), summed_M.float(), size, check_invariants=False
        )
