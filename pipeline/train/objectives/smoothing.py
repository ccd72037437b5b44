"""Item vectors smoothed over the graph: each gets a share of the vectors of its users.

One step of LightGCN's propagation (He et al. 2020, arXiv 2002.02126, equation 3), from users to
items and after training instead of in it. With unit vectors u of users and v of items, and
degrees d and e, an item's vector is v + w e^-b sum d^-a u over its users. LightGCN has
a = b = 1/2; a larger b keeps popular items from the top. Validation and the tables
that are published know of it; the loss does not.

Legend: N items of a block, L rows held here, D columns.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional

from embedmill.pipeline.train.data.graph import Graph, blocks, held

__all__ = ["Smoothing"]


@dataclass(frozen=True)
class Smoothing:
    """The graph with degrees to the powers -a and -b, and w."""

    graph: Graph
    weight: float

    def added(self, first: int, last: int) -> Tensor:
        """What items first .. last - 1 get beside their own, float32 [N, D]; a collective."""
        return self.graph.at_items(first, last, unit=True).mul_(self.weight)

    def apply(self) -> None:
        """Scale all vectors to length one, then smooth the items', in place: for publishing."""
        users, items, dim = self.graph.users, self.graph.items, self.graph.dim
        for table in (users, items):
            vectors_LD = table.weight.detach()[:, :dim]
            for first, last in blocks(len(vectors_LD)):
                vectors_LD[first:last] = functional.normalize(vectors_LD[first:last])
        vectors_LD = items.weight.detach()[:, :dim]
        for first, last in blocks(items.rows):
            added_ND = self.added(first, last)
            own = held(items, first, last)
            vectors_LD[items.local(own)] += added_ND[own - first]
