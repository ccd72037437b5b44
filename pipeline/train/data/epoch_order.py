"""The order of an epoch's events: which of a worker's events each step takes.

Up to a number of events the order is drawn and kept. That of a larger epoch is computed, a step at
a time, by permutations that take no memory: its cursor is the number of the step. So that events
may lie in files, such an epoch reads them window by window: the blocks of a partition are
shuffled, a window is some of these blocks, and its events are shuffled among each other. A step
then reads from one window of each partition, and all windows together are of bounded size.

Legend: E events of this worker, B events of a step here, N events of one partition, S steps, Q
owned partitions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from embedmill.pipeline.train.data.train_events import Events, integer_type
from embedmill.pipeline.train.plan import Layout, Plan, generator, seed_of

__all__ = ["ComputedOrder", "EpochOrder", "Order", "order_bytes", "order_of", "permuted"]

Numbers = NDArray[np.uint64]

# Events of an epoch, over all workers, whose order is kept: 64 MiB. It does not depend on the
# number of workers, and so neither does the order.
_KEPT_EVENTS = 1 << 24
# Events of the windows of all partitions together, at most (512 MiB), and of a block.
_WINDOW_EVENTS, _BLOCK_EVENTS = 1 << 26, 1 << 12
# Odd, of a mix of bits; as many rounds as it takes for neighbours to fall far from each other.
_MULTIPLIERS = (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB, 0xD6E8FEB86659FD93)


class Order(Protocol):
    """Which of a worker's events each step of an epoch takes."""

    def batch(self, step: int) -> Tensor:
        """The events of a step, by ascending partition, int64 [B]."""


def order_bytes(events: int, share: float) -> int:
    """Memory of the order of a worker that owns `share` of an epoch's events."""
    return int(4 * events * share) if events <= _KEPT_EVENTS else 0


def order_of(events: Events, plan: Plan, layout: Layout, *, seed: int, epoch: int) -> Order:
    """The order of an epoch. Args as of `EpochOrder.shuffled`."""
    if plan.events <= _KEPT_EVENTS:
        return EpochOrder.shuffled(events, plan, layout, seed=seed, epoch=epoch)
    return ComputedOrder.of(events, plan, layout, seed=seed, epoch=epoch)


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


@dataclass(frozen=True)
class ComputedOrder:
    """One epoch's order, computed by step: nothing is kept but a few numbers of each partition.

    Every partition is permuted on its own, and each step takes its slice of every partition, as in
    `EpochOrder`. `window` is the number of events of a window. `size_Q` counts the events of the
    owned partitions, `first_Q` says where each begins among this worker's, `key_Q` has the keys of
    their permutations.
    """

    steps: int
    window: int
    size_Q: Numbers
    first_Q: Numbers
    key_Q: Numbers

    @staticmethod
    def of(events: Events, plan: Plan, layout: Layout, *, seed: int, epoch: int) -> ComputedOrder:
        """The order of an epoch. Args as of `EpochOrder.shuffled`."""
        size_Q = np.array(events.sizes, np.uint64)
        keys = [seed_of(seed, "epoch", epoch, partition) for partition in layout.owned]
        first_Q = np.cumsum(size_Q, dtype=np.uint64) - size_Q
        # Whole blocks; the same for any number of workers.
        blocks = max(1, _WINDOW_EVENTS // layout.partitions // _BLOCK_EVENTS)
        window = blocks * _BLOCK_EVENTS
        return ComputedOrder(plan.steps, window, size_Q, first_Q, np.array(keys, np.uint64))

    def batch(self, step: int) -> Tensor:
        """The events of a step, by ascending partition, int64 [B]."""
        start_Q, stop_Q = (
            # In Python's integers: the product of a step and a size may exceed 64 bits.
            np.array([at * int(size) // self.steps for size in self.size_Q], np.int64)
            for at in (step, step + 1)
        )
        number_Q = stop_Q - start_Q
        of_B = np.repeat(np.arange(len(number_Q)), number_Q)
        before_Q = np.cumsum(number_Q) - number_Q
        at_B = (np.arange(len(of_B)) - (before_Q - start_Q)[of_B]).astype(np.uint64)
        found_B = self._shuffled(at_B, self.size_Q[of_B], self.key_Q[of_B])
        return torch.from_numpy((found_B + self.first_Q[of_B]).astype(np.int64))

    def _shuffled(self, at_B: Numbers, size_B: Numbers, key_B: Numbers) -> Numbers:
        """The event at each place of a partition's order. Args as of `permuted`."""
        window, block = np.uint64(self.window), np.uint64(_BLOCK_EVENTS)
        windows_B = np.maximum(size_B // window, 1)
        number_B = np.minimum(at_B // window, windows_B - np.uint64(1))
        start_B = number_B * window  # the last window has what is left, too
        length_B = np.where(number_B + np.uint64(1) == windows_B, size_B - start_B, window)
        at_B = start_B + permuted(at_B - start_B, length_B, key_B + number_B)
        # Where there are several windows, each is made of blocks from all over the partition; the
        # events after the last whole block stay in the last window.
        whole_B = size_B // block
        moved = np.flatnonzero((windows_B > 1) & (at_B // block < whole_B))
        place = permuted(at_B[moved] // block, whole_B[moved], ~key_B[moved])
        at_B[moved] = place * block + at_B[moved] % block
        return at_B


def permuted(at_B: Numbers, size_B: Numbers, key_B: Numbers) -> Numbers:
    """Where a permutation of `size` numbers, given by a key, sends some of them.

    A permutation of the next power of two, walked until the number is below the size (Black and
    Rogaway, CT-RSA 2002, "Ciphers with arbitrary finite domains"); it is no cipher here, only a
    shuffle.

    Args:
        at_B: numbers below their size.
        size_B: of the permutation of each.
        key_B: of the permutation of each.
    """
    bits_B = np.ceil(np.log2(np.maximum(size_B, 2))).astype(np.uint64)
    found_B, open_B = at_B.copy(), np.arange(len(at_B))
    while len(open_B):
        found_B[open_B] = _mixed(found_B[open_B], bits_B[open_B], key_B[open_B])
        open_B = open_B[found_B[open_B] >= size_B[open_B]]
    return found_B


def _mixed(number_B: Numbers, bits_B: Numbers, key_B: Numbers) -> Numbers:
    """A permutation of the numbers below 2 ** bits.

    Each of its steps is one: adding, multiplying by an odd number, and x ^ (x >> s).
    """
    mask_B = (np.uint64(1) << bits_B) - np.uint64(1)
    shift_B = (bits_B + np.uint64(1)) >> np.uint64(1)
    for multiplier in _MULTIPLIERS:
        number_B = (number_B + key_B) * np.uint64(multiplier) & mask_B
        number_B ^= number_B >> shift_B
        key_B = key_B >> np.uint64(13)
    return number_B


def _slice_bounds(size: int, steps: int) -> Tensor:
    """Where the slices of a partition of `size` begin and end, int64 [S + 1]."""
    return torch.arange(steps + 1) * size // max(1, steps)
