"""An epoch of iALS: a sweep over the users, then one over the items.

Every worker solves for the rows that it owns. The Gramian of the other side is summed over the
workers; of the other side's rows, a slice fetches the distinct ones that it needs by one
all-to-all (as ALX does, Mehta et al. 2021, arXiv 2112.02194).

Legend: R rows of a slice, V rows of the other side that it needs, N pairs of the longest row of
a batch, L rows that this worker owns, D columns.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
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
from embedmill.pipeline.train.als.unobserved_weight import with_unobserved_weight
from embedmill.pipeline.train.collectives import Group
from embedmill.pipeline.train.data.train_events import Events
from embedmill.pipeline.train.plan import EvenPlan
from embedmill.pipeline.train.tables.embedding import ShardedEmbedding

__all__ = ["Side", "Sweep", "SweepPlan", "prepare_sweep"]

_FETCHED = 1 << 28  # at most so many numbers of the other side's rows are fetched in a step
_ROWS = 1 << 15  # rows of the fixed side that are multiplied together
_BATCH = 1 << 19  # numbers of the other side's rows in a batch, which stays in cache


@dataclass(frozen=True)
class SweepPlan(EvenPlan):
    """The steps of an epoch: `slices` of the users, then as many of the items.

    A step is reported for its share of the events. The plan is the same for any number of workers.
    """

    dim: int

    @cached_property
    def slices(self) -> int:
        """Steps of half an epoch."""
        return max(1, -(-self.events * self.dim // _FETCHED))

    @property
    def steps(self) -> int:
        """Global steps of an epoch."""
        return 2 * self.slices


@dataclass(frozen=True)
class Side:
    """Users or items as rows to solve for; `l2_L` is the regularisation of each row."""

    table: ShardedEmbedding
    l2_L: Tensor
    slices: list[Slice]

    @staticmethod
    def of(
        table: ShardedEmbedding, pairs: Pairs, others: int, ials: IalsConfig, number: int
    ) -> Side:
        """Prepare one side.

        Args:
            table: its rows.
            pairs: their pairs.
            others: rows of the other side's table.
            ials: the settings.
            number: of slices.
        """
        # Rendle et al. 2021, arXiv 2110.14037, equation 8: a row's own frequency scales it.
        frequency_L = pairs.counts.double() + ials.unobserved_weight * others
        l2_L = ials.regularization * frequency_L**ials.regularization_power
        device = table.group.device
        return Side(table, l2_L.float().to(device), slices(pairs, table, number))


@dataclass
class Sweep:
    """Solves for the users with the items fixed, then for the items with the users fixed.

    `fixed` is what the fixed side contributes: the basis of its Gramian, and its penalty.
    """

    ials: IalsConfig
    plan: SweepPlan
    group: Group
    sides: tuple[Side, Side]
    fixed: tuple[Basis, float] | None = None

    def start_epoch(
        self, epoch: int, learning_rate: Callable[[int], float]
    ) -> Callable[[int], float]:
        """The function that takes a step; epochs are alike, and there is no learning rate."""
        return self.take

    def take(self, step: int) -> float:
        """Take one step of an epoch.

        Returns:
            the loss of the whole objective per event, with the rows as they are after the step;
            NaN or infinite if training has diverged.
        """
        half, at = divmod(step, self.plan.slices)
        side, other = self.sides[half], self.sides[1 - half]
        with self.group.timer("loss"):
            if at == 0 or self.fixed is None:
                self.fixed = self._fix(other)
            basis, penalty = self.fixed
            loss = self._solve(side, other, side.slices[at], basis)
        total = torch.tensor([loss], dtype=torch.float64, device=self.group.device)
        own = float(self.group.sum(total).item()) * self.plan.slices
        return (own + penalty) / max(1, self.plan.events)

    def _fix(self, side: Side) -> tuple[Basis, float]:
        """The basis of the Gramian of a side that stays fixed, and the L2 penalty of its rows."""
        weight_LD, width = side.table.weight.detach(), side.table.width
        gram_DD = torch.zeros((width, width), dtype=torch.float64, device=self.group.device)
        penalty = gram_DD.new_zeros(1)
        blocks = (torch.split(tensor, _ROWS) for tensor in (weight_LD, side.l2_L))
        for part_LD, l2_L in zip(*blocks, strict=True):
            gram_DD += part_LD.T @ part_LD
            penalty += torch.linalg.vecdot(part_LD, part_LD) @ l2_L
        self.group.sum(gram_DD)
        if not bool(gram_DD.isfinite().all()):  # the same at every worker: it is their sum
            return Basis.not_finite(gram_DD), float("nan")
        basis = Basis.of(gram_DD, self.ials.unobserved_weight, self.ials.block_size)
        return basis, float(self.group.sum(penalty).item())

    def _solve(self, side: Side, other: Side, part: Slice, basis: Basis) -> float:
        """Solve for the rows of a slice; returns the sum of their losses."""
        weight_LD, width = side.table.weight.detach(), side.table.width
        with self.group.timer("lookup"):
            other_VD = other.table.fetch(part.other_V)[0] @ basis.rotation_DD
            row_RD = weight_LD[part.local_R] @ basis.rotation_DD
        l2_R, solved_RD = side.l2_L[part.local_R], torch.zeros_like(row_RD)
        loss = row_RD.new_zeros((), dtype=torch.float64)
        for first, end, longest in part.batches(_BATCH, width):
            index_RN, weight_RN = part.padded(first, end, longest)
            other_RND = other_VD.index_select(0, index_RN.view(-1)).view(*index_RN.shape, width)
            batch = Batch(row_RD[first:end], l2_R[first:end], other_RND, weight_RN)
            solved_RD[first:end], loss_R = solve(batch, basis, self.ials.cg_steps)
            loss += loss_R.double().sum()
        # Rows without pairs are in no batch: zero minimizes their loss.
        weight_LD.index_copy_(0, part.local_R, solved_RD @ basis.rotation_DD.T)
        return float(loss)


def prepare_sweep(
    users: ShardedEmbedding,
    items: ShardedEmbedding,
    events: Events,
    weight_E: Tensor,
    ials: IalsConfig,
    plan: SweepPlan,
) -> Sweep:
    """Group the train events by user and by item; the latter are sent to the items' owners.

    Args:
        users: table of the users; this worker owns those of `events`.
        items: table of the items.
        events: train events of the owned partitions.
        weight_E: their sample weights: the confidence of a pair is the sum over its events.
        ials: the settings.
        plan: the steps.
    """
    ials = with_unobserved_weight(ials, plan.events, users.rows, items.rows)
    by_item = at_owners_of_items(events, weight_E, items.layout, items.group)
    of_users = pairs_of(users, events.user_E, events.item_E, weight_E)
    of_items = pairs_of(items, by_item.item_E, by_item.user_E, by_item.weight_E)
    sides = (
        Side.of(users, of_users, items.rows, ials, plan.slices),
        Side.of(items, of_items, users.rows, ials, plan.slices),
    )
    return Sweep(ials, plan, users.group, sides)
