"""Who holds what, and which rows make a step: pure arithmetic, the same on every worker.

Partition p of a table with N rows holds rows p, p + P, p + 2P, ...; worker w of W owns the
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

__all__ = ["Layout", "Plan", "StepPlan", "generator", "rows_in", "seed_of"]


def seed_of(*parts: int | str) -> int:
    """A 63-bit seed from its parts, the same in every process."""
    text = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def generator(*parts: int | str) -> torch.Generator:
    """A CPU generator seeded by its parts."""
    return torch.Generator().manual_seed(seed_of(*parts))


def rows_in(partition: int, partitions: int, rows: int) -> int:
    """Rows that `partition` holds of a table of `rows`."""
    return max(0, (rows - partition + partitions - 1) // partitions)


@dataclass(frozen=True)
class Layout:
    """Partitions over workers."""

    partitions: int
    world: int = 1
    rank: int = 0

    @property
    def owned(self) -> range:
        """Partitions of this worker, rising."""
        return range(self.rank, self.partitions, self.world)

    def owner(self, rows_N: Tensor) -> Tensor:
        """Worker that holds each row, int64 [N]."""
        return (rows_N % self.partitions) % self.world

    def local_rows(self, rows: int) -> int:
        """Rows of a table that this worker holds."""
        return sum(rows_in(p, self.partitions, rows) for p in self.owned)

    def heads(self, rows: int, share: float) -> list[slice]:
        """The first `share` of each owned partition, as rows of this worker's part of a table."""
        found, start = [], 0
        for partition in self.owned:
            size = rows_in(partition, self.partitions, rows)
            found.append(slice(start, start + int(size * share)))
            start += size
        return found

    def offsets(self, rows: int) -> Tensor:
        """Where each partition begins in this worker's part of the table.

        Returns:
            int64 [P]; -1 for the partitions of others.
        """
        offsets, start = torch.full((self.partitions,), -1, dtype=torch.int64), 0
        for partition in self.owned:
            offsets[partition] = start
            start += rows_in(partition, self.partitions, rows)
        return offsets


class Plan(Protocol):
    """Steps of an epoch, the same for any number of workers."""

    @property
    def events(self) -> int:
        """Train events of an epoch."""

    @property
    def steps(self) -> int:
        """Global steps of an epoch."""

    def batch_sizes(self, step: int) -> list[int]:
        """Events of each partition that the step stands for."""


@dataclass(frozen=True)
class StepPlan:
    """Slices of an epoch. `sizes` are train events by partition."""

    sizes: tuple[int, ...]
    batch_size: int

    @cached_property
    def events(self) -> int:
        """Train events of an epoch."""
        return sum(self.sizes)

    @cached_property
    def steps(self) -> int:
        """Global steps of an epoch."""
        return -(-self.events // self.batch_size)

    def span(self, step: int, partition: int) -> tuple[int, int]:
        """Start and end of the partition's slice for the step."""
        size = self.sizes[partition]
        return step * size // self.steps, (step + 1) * size // self.steps

    def batch_sizes(self, step: int) -> list[int]:
        """Events that each partition gives to the step."""
        spans = (self.span(step, p) for p in range(len(self.sizes)))
        return [stop - start for start, stop in spans]
