"""Exchanges between workers. One worker runs the same code with nothing to send."""

from __future__ import annotations

import contextlib
import platform
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
import torch.distributed as dist
from torch import Tensor

from embedmill.pipeline.errors import EmbedmillError, TrainingError
from embedmill.pipeline.train.logs.phase_timer import Clock
from embedmill.pipeline.train.plan import Layout, seed_of

__all__ = ["Group", "StoppedError"]


class StoppedError(TrainingError):
    """Another worker failed, and says why; this one stops with it."""

    def __reduce__(self) -> tuple[object, ...]:
        return StoppedError, (self.what,)


@dataclass(frozen=True)
class Group:
    """The workers that train together; `device` is where their tensors live.

    `clock` is this worker's: its exchanges are "exchange", and callers name their own phases.
    """

    rank: int = 0
    world: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    clock: Clock = field(default_factory=Clock, compare=False)

    @staticmethod
    def joined(device: str = "cpu") -> Group:
        """The group of the initialised default process group, or of one worker."""
        if not (dist.is_available() and dist.is_initialized()):
            return Group(device=torch.device(device))
        return Group(dist.get_rank(), dist.get_world_size(), torch.device(device))

    def leave(self) -> None:
        """Close the connections: workers that wait for this one get a RuntimeError."""
        if self.world > 1 and dist.is_initialized():
            dist.destroy_process_group()

    def here(self, values: Tensor) -> Tensor:
        """Values of this host's memory on the workers' device.

        To a GPU they go by pinned memory, so that the host need not wait for them.
        """
        if self.device.type != "cuda":
            return values.to(self.device)
        return values.pin_memory().to(self.device, non_blocking=True)

    def sum(self, values: Tensor) -> Tensor:
        """Sum over workers, in place."""
        if self.world > 1:
            with self.clock("exchange"):
                dist.all_reduce(values)
        return values

    def summing(self, values: Tensor) -> Callable[[], Tensor]:
        """Begin to sum over workers, in place; what is returned waits for the sum.

        Exchanges may come between: all workers begin them in the same order.
        """
        if self.world == 1:
            return lambda: values
        with self.clock("exchange"):
            work = dist.all_reduce(values, async_op=True)

        def finish() -> Tensor:
            with self.clock("exchange"):
                work.wait()
            return values

        return finish

    def max(self, value: int) -> int:
        """Greatest of the workers' values."""
        if self.world == 1:
            return value
        with self.clock("exchange"):
            tensor = torch.tensor([value], device=self.device)
            dist.all_reduce(tensor, op=dist.ReduceOp.MAX)
            return int(tensor.item())

    def neighbours(self) -> int:
        """Workers on this machine, this one among them."""
        own = torch.tensor([seed_of(platform.node())], device=self.device)
        return int((self.gather(own, [1] * self.world) == own).sum())

    def swap_counts(self, counts: list[int]) -> list[int]:
        """Send one number to each worker; returns the number each sent here."""
        if self.world == 1:
            return list(counts)
        with self.clock("exchange"):
            given = torch.tensor(counts, device=self.device)
            taken = torch.empty_like(given)
            dist.all_to_all_single(taken, given)
            taken_list: list[int] = taken.tolist()
            return taken_list

    def swap(self, values: Tensor, give: list[int], take: list[int]) -> Tensor:
        """All-to-all of rows: `give[w]` rows go to worker w, `take[w]` come from it.

        Args:
            values: [sum(give), ...], grouped by receiver.
            give: rows for each worker.
            take: rows from each worker.

        Returns:
            [sum(take), ...], grouped by sender.
        """
        if self.world == 1:
            return values
        with self.clock("exchange"):
            taken = values.new_empty((sum(take), *values.shape[1:]))
            dist.all_to_all_single(taken, values.contiguous(), take, give)
            return taken

    def gather(self, values: Tensor, sizes: list[int]) -> Tensor:
        """Rows of all workers in order of rank; `sizes[w]` is what worker w has."""
        if self.world == 1:
            return values
        return self.swap(torch.cat([values] * self.world), [len(values)] * self.world, sizes)

    def by_partition(self, own: Tensor, layout: Layout) -> Tensor:
        """One row of each partition, from its owner to all.

        Args:
            own: [owned partitions, ...] in rising order.
            layout: who owns what.

        Returns:
            [P, ...] in order of partition.
        """
        return self.by_partition_rows(own, layout, [1] * layout.partitions)

    def by_partition_rows(self, own: Tensor, layout: Layout, sizes: list[int]) -> Tensor:
        """`sizes[p]` rows of each partition p, from its owner to all, in order of partition."""
        if self.world == 1:
            return own
        owners = [range(w, layout.partitions, self.world) for w in range(self.world)]
        all_rows = self.gather(own, [sum(sizes[p] for p in owned) for owned in owners])
        arrived = [p for owned in owners for p in owned]
        parts = torch.split(all_rows, [sizes[p] for p in arrived])
        placed = dict(zip(arrived, parts, strict=True))
        return torch.cat([placed[p] for p in range(layout.partitions)])

    @contextlib.contextmanager
    def agreed(self) -> Iterator[None]:
        """Work of one's own (reading, writing) that all must finish before any goes on.

        No exchange may happen inside.

        Raises:
            StoppedError: another worker failed; that one raises its own error.
        """
        failed: Exception | None = None
        try:
            yield
        except (EmbedmillError, OSError) as error:
            failed = error
        stopped = self.max(int(failed is not None))
        if failed is not None:
            raise failed
        if stopped:
            raise StoppedError("another worker failed")
