"""Tasks of a stage on Ray: retried if a worker dies, with results in order."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import ray
from ray.exceptions import GetTimeoutError, RayError, RayTaskError

from embedmill.jobs.cluster import WorkerRequest, check_ray, ray_cluster
from embedmill.pipeline.errors import EmbedmillError, MachineError
from embedmill.pipeline.task_pool import TaskPool, TaskRequest, map_in_order

__all__ = ["ray_tasks"]

T = TypeVar("T")
R = TypeVar("R")

# How often a task is started again after its worker or its node has died.
_MAX_RETRIES = 3
_INTERVAL = 1.0  # seconds between two looks at the processes of Ray


class _RayPool:
    """A `TaskPool` on the Ray that this process is connected to."""

    def __init__(self, request: TaskRequest, max_in_flight: int) -> None:
        self._request = request
        self._max_in_flight = max_in_flight

    def map(self, function: Callable[[T], R], tasks: Iterable[T]) -> Iterator[R]:
        remote: Any = ray.remote(num_cpus=self._request.cpus, max_retries=_MAX_RETRIES)(_run)

        def submit(task: T) -> Any:
            return remote.remote(function, task)

        return map_in_order(submit, self._result, tasks, self._max_in_flight)

    def _result(self, reference: Any) -> Any:
        """Wait for a task; errors of this package are raised as they are."""
        try:
            while True:
                with contextlib.suppress(GetTimeoutError):
                    return ray.get(reference, timeout=_INTERVAL)
                check_ray(self._request.stage)
        except RayTaskError as error:
            if isinstance(error.cause, EmbedmillError):
                raise error.cause from None
            raise
        except RayError as error:
            lines = str(error).strip().splitlines()
            raise MachineError(
                f"a task of '{self._request.stage}' failed {_MAX_RETRIES + 1} times, the last "
                f"with: {lines[0] if lines else type(error).__name__}; nothing was published",
                where=self._request.stage,
                todo=f"Look at the nodes' memory. {self._request.lower_memory}",
            ) from error


def _run(function: Callable[[T], R], task: T) -> R:
    """In a worker of Ray."""
    return function(task)


@contextlib.contextmanager
def ray_tasks(request: TaskRequest) -> Iterator[TaskPool]:
    """Run as many tasks at a time as the request has workers; 0: as many as there are CPUs for.

    Raises:
        MachineError: Ray does not start, or cannot be reached.
    """
    with ray_cluster(WorkerRequest(request.stage, max(1, request.workers), request.cpus)):
        resources: dict[str, Any] = ray.cluster_resources()  # type: ignore[no-untyped-call]
        cpus = int(resources.get("CPU", 1))
        # One more than can run at once, so that no CPU waits for the consumer.
        yield _RayPool(request, request.workers or cpus // request.cpus + 1)
