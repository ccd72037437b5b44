"""Tasks of a sharded index on Ray: retried if a worker dies, with results in order."""

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

# How often a task is started again after its worker or its node has died.
_MAX_RETRIES = 3


class _RayPool:
    """A `TaskPool` on the Ray that this process is connected to."""

    def __init__(self, max_in_flight: int) -> None:
        self._max_in_flight = max_in_flight

    def map(self, function: Callable[[T], R], tasks: Iterable[T]) -> Iterator[R]:
        remote: Any = ray.remote(num_cpus=1, max_retries=_MAX_RETRIES)(_run)

        def submit(task: T) -> Any:
            return remote.remote(function, task)

        return map_in_order(submit, _result, tasks, self._max_in_flight)


def _run(function: Callable[[T], R], task: T) -> R:
    """In a worker of Ray."""
    return function(task)


@contextlib.contextmanager
def ray_tasks(config: IndexConfig) -> Iterator[TaskPool]:
    """Run tasks of one CPU each, `index.workers` at a time; 0: as many as the cluster has CPUs.

    Raises:
        MachineError: Ray does not start, or cannot be reached.
    """
    with ray_cluster(WorkerRequest("index", max(1, config.workers))):
        resources: dict[str, Any] = ray.cluster_resources()  # type: ignore[no-untyped-call]
        cpus = int(resources.get("CPU", 1))
        # One more than can run at once, so that no CPU waits for the consumer.
        yield _RayPool(config.workers or cpus + 1)


def _result(reference: Any) -> Any:
    """Wait for a task; errors of this package are raised as they are."""
    try:
        return ray.get(reference)
    except RayTaskError as error:
        if isinstance(error.cause, EmbedmillError):
            raise error.cause from None
        raise
    except RayError as error:
        lines = str(error).strip().splitlines()
        raise MachineError(
            f"a task that builds the index failed {_MAX_RETRIES + 1} times, the last time with: "
            f"{lines[0] if lines else type(error).__name__}; nothing was published",
            where="index",
            todo="Look at the nodes' memory, or lower index.shard_bytes",
        ) from error
