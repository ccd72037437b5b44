"""Exchanges between workers. A single worker runs the same code and sends nothing."""

from __future__ import annotations

import contextlib
import platform
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
import torch.distributed as dist
from torch import Tensor

from embedmill.pipeline.errors import EmbedmillError, TrainingError
from embedmill.pipeline.train.logs.phase_timer import PhaseTimer
from embedmill.pipeline.train.plan import Layout, seed_of

__all__ = ["Group", "StoppedError"]


class StoppedError(TrainingError):
    """This worker stops because another one failed; that one raises the cause."""

    def __reduce__(self) -> tuple[object, ...]:
        return StoppedError, (self.what,)


@dataclass(frozen=True)
class Group:
    """The workers that train together; `device` is where their tensors are.

    `timer` is this worker's: its exchanges count as "exchange", callers name their own phases.
    Methods that exchange something are collectives: all workers call them in the same order.
    """

    rank: int = 0
    world: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    timer: PhaseTimer = field(default_factory=PhaseTimer, compare=False)

    @staticmethod
    def current(device: str = "cpu") -> Group:
        """The workers of torch's default process group; without one, this process alone."""
        if not (dist.is_available() and dist.is_initialized()):
            return Group(device=torch.device(device))
        return Group(dist.get_rank(), dist.get_world_size(), torch.device(device))

    def leave(self) -> None:
        """Close the connections: workers that wait for this one get a RuntimeError."""
        if self.world > 1 and dist.is_initialized():
            dist.destroy_process_group()

    def to_device(self, values: Tensor) -> Tensor:
        """Copy a tensor from host memory to the workers' device.

        Copies to a GPU are made from pinned memory, so that the host does not wait for them.
        """
        if self.device.type != "cuda":
            return values.to(self.device)
        return values.pin_memory().to(self.device, non_blocking=True)

    def sum(self, values: Tensor) -> Tensor:
        """Sum over workers, in place."""
        if self.world > 1:
            with self.timer("exchange"):
                dist.all_reduce(values)
        return values

    def start_sum(self, values: Tensor) -> Callable[[], Tensor]:
        """Start a sum over workers, in place.

        Returns:
            a function that waits for the sum and returns it. Other exchanges may be started
            before it is called, by all workers in the same order.
        """
        if self.world == 1:
            return lambda: values
        with self.timer("exchange"):
            work = dist.all_reduce(values, async_op=True)

        def finish() -> Tensor:
            with self.timer("exchange"):
                work.wait()
            return values

        return finish

    def max(self, value: int) -> int:
        """The greatest of the workers' values."""
        if self.world == 1:
            return value
        with self.timer("exchange"):
            tensor = torch.tensor([value], device=self.device)
            dist.all_reduce(tensor, op=dist.ReduceOp.MAX)
            return int(tensor.item())

    def workers_on_this_machine(self) -> int:
        """How many of the workers run on this worker's machine, itself included."""
        own = torch.tensor([seed_of(platform.node())], device=self.device)
        return int((self.all_gather(own, [1] * self.world) == own).sum())

    def exchange_counts(self, counts: list[int]) -> list[int]:
        """Send `counts[w]` to each worker w; returns the number that each sent to this one."""
        if self.world == 1:
            return list(counts)
        with self.timer("exchange"):
            sent = torch.tensor(counts, device=self.device)
            received = torch.empty_like(sent)
            dist.all_to_all_single(received, sent)
            received_list: list[int] = received.tolist()
            return received_list

    def all_to_all(self, values: Tensor, send: list[int], receive: list[int]) -> Tensor:
        """Send `send[w]` rows to each worker w and receive `receive[w]` rows from it.

        Args:
            values: [sum(send), ...], grouped by receiver.
            send: rows for each worker.
            receive: rows from each worker.

        Returns:
            [sum(receive), ...], grouped by sender.
        """
        if self.world == 1:
            return values
        with self.timer("exchange"):
            received = values.new_empty((sum(receive), *values.shape[1:]))
            dist.all_to_all_single(received, values.contiguous(), receive, send)
            return received

    def all_gather(self, values: Tensor, sizes: list[int]) -> Tensor:
        """The rows of all workers in order of rank; worker w has `sizes[w]` of them."""
        if self.world == 1:
            return values
        return self.all_to_all(torch.cat([values] * self.world), [len(values)] * self.world, sizes)

    def gather_partitions(self, own: Tensor, layout: Layout) -> Tensor:
        """One row of each partition, from its owner to all workers.

        Args:
            own: [owned partitions, ...] in ascending order.
            layout: which worker owns which partition.

        Returns:
            [P, ...] in order of partition.
        """
        return self.gather_partition_rows(own, layout, [1] * layout.partitions)

    def gather_partition_rows(self, own: Tensor, layout: Layout, sizes: list[int]) -> Tensor:
        """`sizes[p]` rows of each partition p, from its owner to all, in order of partition."""
        if self.world == 1:
            return own
        owned_W = [range(w, layout.partitions, self.world) for w in range(self.world)]
        all_rows = self.all_gather(own, [sum(sizes[p] for p in owned) for owned in owned_W])
        by_rank = [p for owned in owned_W for p in owned]
        rows_of = dict(
            zip(by_rank, torch.split(all_rows, [sizes[p] for p in by_rank]), strict=True)
        )
        return torch.cat([rows_of[p] for p in range(layout.partitions)])

    @contextlib.contextmanager
    def fail_together(self) -> Iterator[None]:
        """Around local work (reading, writing) that may fail at one worker.

        No worker goes on before all have finished, and if one fails, all raise. No exchange
        may happen inside.

        Raises:
            StoppedError: another worker failed; that one raises its own error.
        """
        failure: Exception | None = None
        try:
            yield
        except (EmbedmillError, OSError) as error:
            failure = error
        any_failed = self.max(int(failure is not None))
        if failure is not None:
            raise failure
        if any_failed:
            raise StoppedError("another worker failed")
