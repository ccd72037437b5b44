"""Tasks of a sharded index on Ray: retried where a worker dies, answers in order."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import ray
from ray.exceptions import RayError, RayTaskError

from embedmill.jobs.cluster import WorkerRequest, ray_cluster
from embedmill.pipeline.config import IndexConfig
from embedmill.pipeline.errors import EmbedmillError, MachineError
from embedmill.pipeline.index import TaskPool, map_in_order

__all__ = ["ray_tasks"]

T = TypeVar("T")
R = TypeVar("R")

# A worker that dies, or whose node does: its task begins again, so often.
_RETRIES = 3


class _Tasks:
    """A Ray that has been joined."""

    def __init__(self, most: int) -> None:
        self._most = most

    def map(self, task: Callable[[T], R], parts: Iterable[T]) -> Iterator[R]:
        remote: Any = ray.remote(num_cpus=1, max_retries=_RETRIES)(_done)

        def submit(part: T) -> Any:
            return remote.remote(task, part)

        return map_in_order(submit, _answer, parts, self._most)


def _done(task: Callable[[T], R], part: T) -> R:
    """A task of Ray's."""
    return task(part)


@contextlib.contextmanager
def ray_tasks(config: IndexConfig) -> Iterator[TaskPool]:
    """Tasks of a CPU each: `index.workers` at a time, or as many as the cluster has CPUs.

    Raises:
        MachineError: Ray does not start, or cannot be reached.
    """
    with ray_cluster(WorkerRequest("index", max(1, config.workers))):
        has: dict[str, Any] = ray.cluster_resources()  # type: ignore[no-untyped-call]
        cpus = int(has.get("CPU", 1))
        # One more than can run: none waits for the next to be asked for.
        yield _Tasks(config.workers or cpus + 1)


def _answer(reference: Any) -> Any:
    try:
        return ray.get(reference)
    except RayTaskError as error:
        if isinstance(error.cause, EmbedmillError):
            raise error.cause from None
        raise
    except RayError as error:
        said = str(error).strip().splitlines()
        raise MachineError(
            f"a task that builds the index failed {_RETRIES + 1} times, at last with: "
            f"{said[0] if said else type(error).__name__}; nothing was published",
            where="index",
            todo="Look at the nodes' memory, or lower index.shard_bytes",
        ) from error
