"""An epoch of iALS: a sweep over the users, then one over the items.

Every worker solves for the rows that it owns. The Gramian of the other side is summed over the
workers; of the other side's rows, the distinct ones that a slice needs come by one all-to-all
(as ALX does, Mehta et al. 2021, arXiv 2112.02194).

Legend: R rows of a slice here, V rows of the other side that it needs, N pairs of the longest
row of a batch, L rows held here, D columns.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from embedmill.pipeline.config import IalsConfig
from embedmill.pipeline.train.als.positives import (
    Pairs,
    Slice,
    at_owners_of_items,
    pairs_of,
    slices,
)
from embedmill.pipeline.train.als.solve import Basis, Batch, solve
from embedmill.pipeline.train.collectives import Group
from embedmill.pipeline.train.data.batches import Events
from embedmill.pipeline.train.tables.embedding import ShardedEmbedding

__all__ = ["Side", "Sweep", "SweepPlan", "prepared"]

_FETCHED = 1 << 28  # numbers of the other side's rows at hand in one step, at most
_ROWS = 1 << 15  # rows of the side at rest that are looked at together
_BATCH = 1 << 19  # numbers of them that are worked on together: they stay in cache


@dataclass(frozen=True)
class SweepPlan:
    """Steps of an epoch: `slices` of the users, then as many of the items.

    `sizes` are train events by partition. It is the same for any number of workers.
    """

    sizes: tuple[int, ...]
    dim: int

    @cached_property
    def events(self) -> int:
        """Train events of an epoch."""
        return sum(self.sizes)

    @cached_property
    def slices(self) -> int:
        """Steps of a half of an epoch."""
        return max(1, -(-self.events * self.dim // _FETCHED))

    @property
    def steps(self) -> int:
        """Steps of an epoch."""
        return 2 * self.slices

    def batch_sizes(self, step: int) -> list[int]:
        """Events of each partition that the step stands for: all of them in an epoch."""
        return [(step + 1) * size // self.steps - step * size // self.steps for size in self.sizes]


@dataclass(frozen=True)
class Side:
    """One side as it is solved for; `decay_L` is the regularisation of each of its rows."""

    table: ShardedEmbedding
    decay_L: Tensor
    slices: list[Slice]

    @staticmethod
    def of(table: ShardedEmbedding, pairs: Pairs, others: int, ials: IalsConfig, cut: int) -> Side:
        """The side of a table's rows, in `cut` slices; `others` counts the other side's rows."""
        # Rendle et al. 2021, arXiv 2110.14037, equation 8: a row's own frequency scales it.
        frequency_L = pairs.counts.double() + ials.unobserved_weight * others
        decay_L = ials.regularization * frequency_L**ials.regularization_power
        device = table.group.device
        return Side(table, decay_L.float().to(device), slices(pairs, table, cut))


@dataclass
class Sweep:
    """Users and items, each solved for in turn; `held` is what the side at rest gives."""

    ials: IalsConfig
    plan: SweepPlan
    group: Group
    sides: tuple[Side, Side]
    held: tuple[Basis, float] | None = field(default=None)

    def take(self, step: int) -> float:
        """Take one step of an epoch; returns the loss per pair, NaN or infinite if it diverged.

        The loss is that of the whole objective with the rows as they are after the step.
        """
        half, at = divmod(step, self.plan.slices)
        side, other = self.sides[half], self.sides[1 - half]
        with self.group.clock("loss"):
            if at == 0 or self.held is None:
                self.held = self._rest(other)
            basis, penalty = self.held
            loss = self._solved(side, other, side.slices[at], basis)
        total = torch.tensor([loss], dtype=torch.float64, device=self.group.device)
        own = float(self.group.sum(total).item()) * self.plan.slices
        return (own + penalty) / max(1, self.plan.events)

    def _rest(self, side: Side) -> tuple[Basis, float]:
        """The basis of a side that is held fixed, and the penalty on its rows."""
        weight_LD, width = side.table.weight.detach(), side.table.width
        gram_DD = torch.zeros((width, width), dtype=torch.float64, device=self.group.device)
        penalty = gram_DD.new_zeros(1)
        blocks = (torch.split(tensor, _ROWS) for tensor in (weight_LD, side.decay_L))
        for part_LD, decay_L in zip(*blocks, strict=True):
            gram_DD += part_LD.T @ part_LD
            penalty += torch.linalg.vecdot(part_LD, part_LD) @ decay_L
        self.group.sum(gram_DD)
        if not bool(gram_DD.isfinite().all()):  # at every worker alike: it is their sum
            return Basis.nothing(gram_DD), float("nan")
        basis = Basis.of(gram_DD, self.ials.unobserved_weight, self.ials.block)
        return basis, float(self.group.sum(penalty).item())

    def _solved(self, side: Side, other: Side, part: Slice, basis: Basis) -> float:
        """Solve for the rows of a slice; returns the sum of their losses."""
        weight_LD, width = side.table.weight.detach(), side.table.width
        with self.group.clock("lookup"):
            near_VD = other.table.fetch(part.other_V)[0] @ basis.turn_DD
            row_RD = weight_LD[part.local_R] @ basis.turn_DD
        decay_R, solved_RD = side.decay_L[part.local_R], torch.zeros_like(row_RD)
        loss = row_RD.new_zeros((), dtype=torch.float64)
        for first, end, longest in part.batches(_BATCH, width):
            index_RN, weight_RN = part.padded(first, end, longest)
            near_RND = near_VD.index_select(0, index_RN.view(-1)).view(*index_RN.shape, width)
            batch = Batch(row_RD[first:end], decay_R[first:end], near_RND, weight_RN)
            solved_RD[first:end], loss_R = solve(batch, basis, self.ials.cg_steps)
            loss += loss_R.double().sum()
        # Rows without pairs are in no batch: zero is best for them.
        weight_LD.index_copy_(0, part.local_R, solved_RD @ basis.turn_DD.T)
        return float(loss)


def prepared(
    users: ShardedEmbedding,
    items: ShardedEmbedding,
    events: Events,
    votes_E: Tensor,
    ials: IalsConfig,
    plan: SweepPlan,
) -> Sweep:
    """Lay out the train events for both sides; the items' go to the items' owners, once.

    Args:
        users: its owned rows are those of `events`.
        items: the other table.
        events: train events of the owned users.
        votes_E: how much each event counts, its confidence.
        ials: the settings.
        plan: the steps.
    """
    by_item = at_owners_of_items(events, votes_E, items.layout, items.group)
    of_users = pairs_of(users, events.user_E, events.item_E, votes_E)
    of_items = pairs_of(items, by_item.item_E, by_item.user_E, by_item.weight_E)
    sides = (
        Side.of(users, of_users, items.rows, ials, plan.slices),
        Side.of(items, of_items, users.rows, ials, plan.slices),
    )
    return Sweep(ials, plan, users.group, sides)
