"""The order of an epoch's events: which of a worker's events each step takes.

Legend: E events of this worker, B events of a step here, N events of one partition, S steps.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from embedmill.pipeline.train.data.train_events import Events, integer_type
from embedmill.pipeline.train.plan import Layout, Plan, generator

__all__ = ["EpochOrder"]


@dataclass(frozen=True)
class EpochOrder:
    """One epoch's order: step s takes the events `order_E[ends[s] : ends[s + 1]]`."""

    order_E: Tensor
    ends: list[int]

    @staticmethod
    def shuffled(
        events: Events, plan: Plan, layout: Layout, *, seed: int, epoch: int
    ) -> EpochOrder:
        """Shuffle each partition on its own, and give each step its slice of every partition.

        Args:
            events: of the owned partitions.
            plan: the steps of an epoch.
            layout: which partitions this worker owns.
            seed: the run's seed.
            epoch: number of the epoch, from 0.
        """
        counts_S = torch.zeros(plan.steps, dtype=torch.int64)
        for size in events.sizes:
            counts_S += _slice_bounds(size, plan.steps).diff()
        ends_S = torch.cat([counts_S.new_zeros(1), counts_S.cumsum(0)])
        dtype = integer_type(len(events))
        order_E = torch.empty(len(events), dtype=dtype)
        next_S, start = ends_S[:-1].clone(), 0  # next free position of each step
        for partition, size in zip(layout.owned, events.sizes, strict=True):
            source = generator(seed, "epoch", epoch, partition)
            bounds_S = _slice_bounds(size, plan.steps)
            sizes_S = bounds_S.diff()
            # The partition's n-th event goes into its step, after those of lower partitions.
            position_N = (next_S - bounds_S[:-1]).repeat_interleave(sizes_S) + torch.arange(size)
            order_E[position_N] = torch.randperm(size, generator=source, dtype=dtype) + start
            next_S += sizes_S
            start += size
        return EpochOrder(order_E, ends_S.tolist())

    def batch(self, step: int) -> Tensor:
        """The events of a step, by ascending partition, int64 [B]."""
        return self.order_E[self.ends[step] : self.ends[step + 1]].long()


def _slice_bounds(size: int, steps: int) -> Tensor:
    """Where the slices of a partition of `size` begin and end, int64 [S + 1]."""
    return torch.arange(steps + 1) * size // max(1, steps)
