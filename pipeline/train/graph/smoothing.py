"""Item vectors smoothed over the graph: each gets a share of the vectors of its users.

One step of LightGCN's propagation (He et al. 2020, arXiv 2002.02126, equation 3), from users to
items, and applied after training instead of in it. With unit vectors u of users and v of items,
and degrees d and e, an item's vector becomes v + w e^-b sum d^-a u over its users. LightGCN has
a = b = 1/2; a larger b ranks popular items lower. Validation and the published tables use
smoothed vectors, the loss does not.

Legend: N items of a block, L rows of this worker, D columns.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional

from embedmill.pipeline.train.graph.event_graph import EventGraph, owned_rows, row_blocks

__all__ = ["Smoothing"]


@dataclass(frozen=True)
class Smoothing:
    """The graph scaled by degrees to the powers -a and -b, and the weight w."""

    graph: EventGraph
    weight: float

    def added(self, first: int, last: int) -> Tensor:
        """What is added to the unit vectors of items first .. last - 1; a collective.

        Returns:
            float32 [N, D].
        """
        return self.graph.item_sums(first, last, normalize=True).mul_(self.weight)

    def apply(self) -> None:
        """Normalize all vectors, then smooth those of the items, in place; a collective."""
        users, items, dim = self.graph.users, self.graph.items, self.graph.dim
        for table in (users, items):
            vectors_LD = table.weight.detach()[:, :dim]
            for first, last in row_blocks(len(vectors_LD)):
                vectors_LD[first:last] = functional.normalize(vectors_LD[first:last])
        vectors_LD = items.weight.detach()[:, :dim]
        for first, last in row_blocks(items.rows):
            added_ND = self.added(first, last)
            own = owned_rows(items, first, last)
            vectors_LD[items.local_index(own)] += added_ND[own - first]
