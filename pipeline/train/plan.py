"""Which worker owns which rows, and which events make a step: the same arithmetic everywhere.

Partition p of a table with N rows has the rows p, p + P, p + 2P, ...; worker w of W owns the
partitions with p mod W = w. Step s of an epoch takes, from every partition, the s-th of S
slices of that partition's permutation, so a global batch does not depend on W.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

__all__ = [
    "EvenPlan",
    "Layout",
    "Plan",
    "StepPlan",
    "TrainingSize",
    "generator",
    "rows_in",
    "seed_of",
]


def seed_of(*parts: int | str) -> int:
    """A 63-bit seed made of its parts, the same in every process."""
    text = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def generator(*parts: int | str) -> torch.Generator:
    """A CPU generator seeded by its parts."""
    return torch.Generator().manual_seed(seed_of(*parts))


def rows_in(partition: int, partitions: int, rows: int) -> int:
    """How many of a table's `rows` are in `partition`."""
    return max(0, (rows - partition + partitions - 1) // partitions)


@dataclass(frozen=True)
class TrainingSize:
    """Rows of both tables, and examples.

    Where pairs of items are trained on, `users` counts the centers, `items` the contexts,
    `train` the pairs, `valid` the events that are read beside them, and `derived` the users,
    whose vectors are computed from those of the items.
    """

    users: int
    items: int
    train: int
    valid: int
    derived: int = 0

    @property
    def rows(self) -> int:
        """Rows of both tables."""
        return self.users + self.items


@dataclass(frozen=True)
class Layout:
    """How `partitions` are distributed over `world` workers, seen from the worker `rank`."""

    partitions: int
    world: int = 1
    rank: int = 0

    @property
    def owned(self) -> range:
        """Partitions of this worker, ascending."""
        return range(self.rank, self.partitions, self.world)

    def owner(self, rows_N: Tensor) -> Tensor:
        """The worker that owns each row, int64 [N]."""
        return (rows_N % self.partitions) % self.world

    def local_rows(self, rows: int) -> int:
        """How many of a table's `rows` this worker owns."""
        return sum(rows_in(p, self.partitions, rows) for p in self.owned)

    def head_slices(self, rows: int, share: float) -> list[slice]:
        """The first `share` of each owned partition, as slices of this worker's rows."""
        slices, start = [], 0
        for partition in self.owned:
            size = rows_in(partition, self.partitions, rows)
            slices.append(slice(start, start + int(size * share)))
            start += size
        return slices

    def offsets(self, rows: int) -> Tensor:
        """Where each partition begins among this worker's rows of a table.

        Returns:
            int64 [P]; -1 for the partitions of other workers.
        """
        offsets, start = torch.full((self.partitions,), -1, dtype=torch.int64), 0
        for partition in self.owned:
            offsets[partition] = start
            start += rows_in(partition, self.partitions, rows)
        return offsets


class Plan(Protocol):
    """The steps of an epoch, the same for any number of workers."""

    @property
    def events(self) -> int:
        """Examples of an epoch: events, or pairs of items."""

    @property
    def steps(self) -> int:
        """Global steps of an epoch."""

    def batch_sizes(self, step: int) -> list[int]:
        """How many examples of each partition the step works on."""


@dataclass(frozen=True)
class EvenPlan:
    """An epoch of `steps` steps that share its examples evenly. `sizes` counts them by partition.

    A subclass says how many steps there are.
    """

    sizes: tuple[int, ...]

    @property
    def steps(self) -> int:
        """Global steps of an epoch."""
        raise NotImplementedError

    @cached_property
    def events(self) -> int:
        """Examples of an epoch: events, or pairs of items."""
        return sum(self.sizes)

    def span(self, step: int, partition: int) -> tuple[int, int]:
        """Start and end of the partition's slice in the step."""
        size = self.sizes[partition]
        return step * size // self.steps, (step + 1) * size // self.steps

    def batch_sizes(self, step: int) -> list[int]:
        """How many examples of each partition the step works on, or is reported for."""
        spans = (self.span(step, p) for p in range(len(self.sizes)))
        return [stop - start for start, stop in spans]


@dataclass(frozen=True)
class StepPlan(EvenPlan):
    """An epoch in which every example is in one batch of about `batch_size`."""

    batch_size: int

    @cached_property
    def steps(self) -> int:
        """Global steps of an epoch."""
        return -(-self.events // self.batch_size)
