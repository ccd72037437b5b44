"""Embedding tables sharded by row, with all-to-all lookup of distinct rows.

Legend: N rows of the whole table, L rows that this worker owns, V distinct rows that it looks
up, R rows that all workers look up at this one, G distinct ones of these, D columns,
P partitions, S lookups, W workers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from embedmill.pipeline.train.collectives import Group
from embedmill.pipeline.train.plan import Layout, generator, rows_in

__all__ = ["Route", "ShardedEmbedding", "draw_initial", "draw_normal", "set_initial"]

_BLOCK = 1 << 14  # rows drawn together, a multiple of sixteen


@dataclass(frozen=True)
class Route:
    """How the rows of one lookup travel; their gradients go the opposite way.

    `order_V` sorts the looked-up rows by owner; None where they are sorted already. This
    worker requests `send[w]` rows from worker w, which requests `receive[w]` from this one:
    `local_R`, as indices of its own rows.
    """

    order_V: Tensor | None
    send: list[int]
    receive: list[int]
    local_R: Tensor


class ShardedEmbedding(nn.Module):
    """A table [N, D] of which this worker owns the partitions of its layout.

    It behaves as `torch.nn.Embedding` for an index of any shape. With several workers a lookup
    is a collective: all of them call it equally often, each with the rows that it needs (or
    none). The gradient of a row is summed over all workers and arrives at the row's owner.
    """

    def __init__(self, weight_LD: Tensor, rows: int, layout: Layout, group: Group) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight_LD)
        self.rows = rows
        self.layout = layout
        self.group = group
        self.offset_P = layout.offsets(rows).to(group.device)

    @property
    def width(self) -> int:
        """Columns, D."""
        return int(self.weight.shape[1])

    def forward(self, index: Tensor) -> Tensor:
        """Rows of the table.

        Args:
            index: integers of any shape S, from 0 to N - 1.

        Returns:
            float [*S, D], differentiable.

        Raises:
            IndexError: an index is out of range, at any worker.
        """
        distinct_V, inverse = self.distinct(index)
        vectors_VD: Tensor = _Lookup.apply(  # type: ignore[no-untyped-call]
            self.weight, distinct_V, self
        )
        return nn.functional.embedding(inverse, vectors_VD)

    def distinct(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Each row once, grouped by owner, so that `fetch` need not sort them.

        Returns:
            distinct rows int64 [V], and the position of each of `rows` among them, in the
            shape of `rows`.
        """
        # A row out of range is passed on unchanged: `fetch` raises it at all workers.
        valid = not bool(((rows < 0) | (rows >= self.rows)).any())
        keys = rows + self.layout.owner(rows) * self.rows if valid else rows
        key_V, inverse = torch.unique(keys, return_inverse=True)
        return key_V % self.rows if valid else key_V, inverse

    def fetch(self, rows_V: Tensor) -> tuple[Tensor, Route]:
        """Vectors of distinct rows from their owners, without autograd.

        Returns:
            float [V, D] in the order of `rows_V`, and the route for `sum_gradients`.

        Raises:
            IndexError: a row is out of range, at any worker (all of them raise).
        """
        [route] = self.route_lookups([rows_V])
        return self.read(route), route

    def route_lookups(self, lookups: Sequence[Tensor]) -> list[Route]:
        """Announce the rows of several lookups to their owners, in one exchange for all lookups.

        Args:
            lookups: distinct rows int64 [V] of each; all workers have equally many lookups.

        Raises:
            IndexError: a row is out of range, at any worker (all of them raise).
        """
        world, number = self.group.world, len(lookups)
        orders: list[Tensor | None] = []
        requests: list[tuple[Tensor, ...]] = []  # by lookup, then by owner
        out_of_range = False
        for rows_V in lookups:
            wrong = len(rows_V) > 0 and bool((rows_V.min() < 0) | (rows_V.max() >= self.rows))
            out_of_range = out_of_range or wrong
            owner_V = torch.zeros_like(rows_V) if wrong else self.layout.owner(rows_V)
            order_V = None
            if bool((owner_V[1:] < owner_V[:-1]).any()):
                order_V = torch.argsort(owner_V, stable=True)
                rows_V = rows_V.index_select(0, order_V)
            orders.append(order_V)
            count_W = torch.bincount(owner_V, minlength=world).tolist()
            requests.append(torch.split(rows_V, count_W))
        send_SW = [[len(rows) for rows in parts] for parts in requests]
        receive_SW = self._received_counts(send_SW, out_of_range)
        if out_of_range or min(map(min, receive_SW)) < 0:
            raise IndexError(f"row out of range: the table has rows 0 to {self.rows - 1:,}")
        requested = torch.cat([parts[owner] for owner in range(world) for parts in requests])
        send_W, receive_W = (
            [sum(counts) for counts in zip(*counts_SW, strict=True)]
            for counts_SW in (send_SW, receive_SW)
        )
        local = self.local_index(self.group.all_to_all(requested, send_W, receive_W))
        parts_WS = torch.split(local, [receive[w] for w in range(world) for receive in receive_SW])
        return [
            Route(order_V, send_SW[at], receive_SW[at], torch.cat(parts_WS[at::number]))
            for at, order_V in enumerate(orders)
        ]

    def _received_counts(self, send_SW: list[list[int]], out_of_range: bool) -> list[list[int]]:
        """How many rows each worker requests here, by lookup; -1 from one with a bad row."""
        world = self.group.world
        sent_SW = torch.tensor(send_SW, device=self.group.device)
        if out_of_range:
            sent_SW.fill_(-1)
        one = [1] * world
        received: list[list[int]] = self.group.all_to_all(
            sent_SW.T.contiguous(), one, one
        ).T.tolist()
        return received

    def read(self, route: Route) -> Tensor:
        """Vectors of a route's rows from their owners, float [V, D] in the order of the lookup."""
        own_RD = self.weight.detach().index_select(0, route.local_R)
        vectors_VD = self.group.all_to_all(own_RD, route.receive, route.send)
        if route.order_V is not None:
            vectors_VD = torch.empty_like(vectors_VD).index_copy_(0, route.order_V, vectors_VD)
        return vectors_VD

    def sum_gradients(self, route: Route, gradient_VD: Tensor) -> tuple[Tensor, Tensor]:
        """Send the gradients of looked-up rows to the rows' owners and sum them there.

        Args:
            route: of the lookup.
            gradient_VD: of any width.

        Returns:
            local indices int64 [G], distinct, and gradients float [G, D].
        """
        if route.order_V is not None:
            gradient_VD = gradient_VD.index_select(0, route.order_V)
        received_RD = self.group.all_to_all(gradient_VD, route.send, route.receive)
        if self.group.world == 1:
            return route.local_R, received_RD  # no other worker looked up the same rows
        local_G, inverse_R = torch.unique(route.local_R, return_inverse=True)
        summed_GD = received_RD.new_zeros((len(local_G), received_RD.shape[1]))
        return local_G, summed_GD.index_add_(0, inverse_R, received_RD)

    def local_index(self, rows: Tensor) -> Tensor:
        """Positions in `weight` of rows that this worker owns."""
        return self.offset_P[rows % self.layout.partitions] + rows // self.layout.partitions

    def partition_slice(self, partition: int) -> slice:
        """Positions in `weight` of an owned partition."""
        start = int(self.offset_P[partition])
        return slice(start, start + rows_in(partition, self.layout.partitions, self.rows))


class _Lookup(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, rows_V: Tensor, table: ShardedEmbedding) -> Tensor:
        vectors_VD, ctx.route = table.fetch(rows_V)
        ctx.table = table
        return vectors_VD

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        local_G, gradient_GD = ctx.table.sum_gradients(ctx.route, gradients[0])
        dense_LD = torch.zeros_like(ctx.table.weight)
        dense_LD[local_G] = gradient_GD
        return dense_LD, None, None


def set_initial(
    weight_LD: Tensor, table: str, rows: int, layout: Layout, *, seed: int, scale: float
) -> None:
    """Fill a worker's rows with normal values that do not depend on the number of workers.

    Args:
        weight_LD: [L, D], the rows of the layout's partitions.
        table: name of the table; it is part of the seed, so tables differ.
        rows: rows of the whole table, N.
        layout: which partitions this worker owns.
        seed: the run's seed.
        scale: standard deviation.
    """
    start = 0
    for partition in layout.owned:
        size = rows_in(partition, layout.partitions, rows)
        rows_ND = weight_LD[start : start + size]
        draw_initial(rows_ND, table, partition, seed=seed, scale=scale)
        start += size


def draw_initial(rows_ND: Tensor, table: str, partition: int, *, seed: int, scale: float) -> None:
    """Fill the rows of one partition with its initial normal values.

    Args:
        rows_ND: the partition's rows.
        table: name of the table.
        partition: number of the partition.
        seed: the run's seed.
        scale: standard deviation.
    """
    draw_normal(rows_ND, generator(seed, "init", table, partition), scale)


def draw_normal(rows_ND: Tensor, source: torch.Generator, scale: float) -> None:
    """Fill rows with the values of one `torch.randn` of their shape, a block at a time.

    torch draws normal values in groups of sixteen and draws an incomplete last group anew.
    Blocks therefore have a multiple of sixteen rows, and the last one includes the remainder.
    """
    blocks = max(1, len(rows_ND) // _BLOCK)
    for at in range(blocks):
        stop = (at + 1) * _BLOCK if at + 1 < blocks else len(rows_ND)
        block_ND = rows_ND[at * _BLOCK : stop]
        block_ND.copy_(torch.randn(block_ND.shape, generator=source) * scale)
