"""Embedding tables sharded by row, with all-to-all lookup of distinct rows.

Legend: N rows of the whole table, L rows held here, V distinct rows asked for here,
R rows asked for by all workers here, G distinct ones of these, D columns, P partitions.
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
    """How the rows of one lookup travel; gradients go back the same way.

    `order_V` groups them by owner; None where they came so.
    """

    order_V: Tensor | None
    give: list[int]
    take: list[int]
    local_R: Tensor


class ShardedEmbedding(nn.Module):
    """A table [N, D] of which this worker holds the partitions of its layout.

    It behaves as `torch.nn.Embedding` for any shape of index. With several workers a lookup
    is a collective: each calls it equally often, with whatever rows it needs (or none). The
    gradient of a row is summed over all workers and arrives at its owner.
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
        """Each row once, grouped by owner, so that `fetch` need not bring them in order.

        Returns:
            rows int64 [V], and where each of `rows` stands among them, in their shape.
        """
        # A row out of range goes on to `fetch` as it is, where all workers hear of it.
        sound = not bool(((rows < 0) | (rows >= self.rows)).any())
        keys = rows + self.layout.owner(rows) * self.rows if sound else rows
        key_V, inverse = torch.unique(keys, return_inverse=True)
        return key_V % self.rows if sound else key_V, inverse

    def fetch(self, rows_V: Tensor) -> tuple[Tensor, Route]:
        """Vectors of distinct rows from their owners, without autograd.

        Returns:
            float [V, D] in the order of `rows_V`, and the route for `push`.

        Raises:
            IndexError: a row is out of range, at any worker (all of them raise).
        """
        [route] = self.routes([rows_V])
        return self.bring(route), route

    def routes(self, lookups: Sequence[Tensor]) -> list[Route]:
        """Tell the owners what rows several lookups will bring, in one exchange for all of them.

        Args:
            lookups: distinct rows int64 [V] of each; all workers have equally many lookups.

        Raises:
            IndexError: a row is out of range, at any worker (all of them raise).
        """
        world, number = self.group.world, len(lookups)
        orders: list[Tensor | None] = []
        asked: list[tuple[Tensor, ...]] = []  # by lookup, then by owner
        wrong = False
        for rows_V in lookups:
            bad = len(rows_V) > 0 and bool((rows_V.min() < 0) | (rows_V.max() >= self.rows))
            wrong = wrong or bad
            owner_V = torch.zeros_like(rows_V) if bad else self.layout.owner(rows_V)
            order_V = None
            if bool((owner_V[1:] < owner_V[:-1]).any()):
                order_V = torch.argsort(owner_V, stable=True)
                rows_V = rows_V.index_select(0, order_V)
            orders.append(order_V)
            give = torch.bincount(owner_V, minlength=world).tolist()
            asked.append(torch.split(rows_V, give))
        give_SW = [[len(rows) for rows in parts] for parts in asked]
        take_SW = self._taken(give_SW, wrong)
        if wrong or min(map(min, take_SW)) < 0:
            raise IndexError(f"row out of range: the table has rows 0 to {self.rows - 1:,}")
        sent = torch.cat([parts[owner] for owner in range(world) for parts in asked])
        gives, takes = (
            [sum(counts) for counts in zip(*counts_SW, strict=True)]
            for counts_SW in (give_SW, take_SW)
        )
        local = self.local(self.group.swap(sent, gives, takes))
        parts_WS = torch.split(local, [take[w] for w in range(world) for take in take_SW])
        return [
            Route(order_V, give_SW[at], take_SW[at], torch.cat(parts_WS[at::number]))
            for at, order_V in enumerate(orders)
        ]

    def _taken(self, give_SW: list[list[int]], wrong: bool) -> list[list[int]]:
        """How many rows each worker asks for here, by lookup; below 0 where one asks wrongly."""
        world = self.group.world
        given_SW = torch.tensor(give_SW, device=self.group.device)
        if wrong:
            given_SW.fill_(-1)
        one = [1] * world
        taken: list[list[int]] = self.group.swap(given_SW.T.contiguous(), one, one).T.tolist()
        return taken

    def bring(self, route: Route) -> Tensor:
        """Vectors of a route's rows from their owners, float [V, D] in the order of the lookup."""
        found_RD = self.weight.detach().index_select(0, route.local_R)
        vectors_VD = self.group.swap(found_RD, route.take, route.give)
        if route.order_V is not None:
            vectors_VD = torch.empty_like(vectors_VD).index_copy_(0, route.order_V, vectors_VD)
        return vectors_VD

    def push(self, route: Route, gradient_VD: Tensor) -> tuple[Tensor, Tensor]:
        """Bring the gradients of looked-up rows to their owners and sum them.

        Returns:
            local indices int64 [G], distinct, and gradients float [G, D].
        """
        if route.order_V is not None:
            gradient_VD = gradient_VD.index_select(0, route.order_V)
        taken_RD = self.group.swap(gradient_VD, route.give, route.take)
        if self.group.world == 1:
            return route.local_R, taken_RD  # no one else asked for the same rows
        local_G, inverse_R = torch.unique(route.local_R, return_inverse=True)
        summed_GD = taken_RD.new_zeros((len(local_G), self.width))
        return local_G, summed_GD.index_add_(0, inverse_R, taken_RD)

    def local(self, rows: Tensor) -> Tensor:
        """Where rows that are held here stand in `weight`."""
        return self.offset_P[rows % self.layout.partitions] + rows // self.layout.partitions

    def span(self, partition: int) -> slice:
        """Where an owned partition stands in `weight`."""
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
        local_G, gradient_GD = ctx.table.push(ctx.route, gradients[0])
        dense_LD = torch.zeros_like(ctx.table.weight)
        dense_LD[local_G] = gradient_GD
        return dense_LD, None, None


def set_initial(
    weight_LD: Tensor, table: str, rows: int, layout: Layout, *, seed: int, scale: float
) -> None:
    """Fill a worker's part with normal values, the same for any number of workers.

    Args:
        weight_LD: [L, D], the rows of the layout's partitions.
        table: name of the table; tables of one seed differ.
        rows: rows of the whole table.
        layout: which partitions are held.
        seed: the run's.
        scale: standard deviation.
    """
    start = 0
    for partition in layout.owned:
        size = rows_in(partition, layout.partitions, rows)
        rows_ND = weight_LD[start : start + size]
        draw_initial(rows_ND, table, partition, seed=seed, scale=scale)
        start += size


def draw_initial(rows_ND: Tensor, table: str, partition: int, *, seed: int, scale: float) -> None:
    """Fill the rows of one partition of a table with the normal values that it begins with."""
    draw_normal(rows_ND, generator(seed, "init", table, partition), scale)


def draw_normal(rows_ND: Tensor, source: torch.Generator, scale: float) -> None:
    """Fill rows with what one draw over all of them would give, a block at a time.

    torch draws normal numbers by sixteens and draws an odd rest anew: blocks have a multiple
    of sixteen rows, and the last one takes the rest in.
    """
    blocks = max(1, len(rows_ND) // _BLOCK)
    for at in range(blocks):
        stop = (at + 1) * _BLOCK if at + 1 < blocks else len(rows_ND)
        part_ND = rows_ND[at * _BLOCK : stop]
        part_ND.copy_(torch.randn(part_ND.shape, generator=source) * scale)
