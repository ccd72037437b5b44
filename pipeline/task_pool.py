"""Where the tasks of a stage run: in this process, in several processes, or on Ray.

A task is a function of one picklable argument; its files go to a storage that every worker
reaches. A task uses one thread, and results come back in the order of the tasks, so that the number
of workers and the launcher change nothing but the time.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, Protocol, TypeVar

from embedmill.pipeline.child_process import exit_with_driver
from embedmill.pipeline.errors import MachineError

__all__ = [
    "LAUNCHERS",
    "Launcher",
    "Launchers",
    "TaskPool",
    "TaskRequest",
    "choose_launcher",
    "inline",
    "map_in_order",
    "processes",
    "usable_cores",
]

T = TypeVar("T")
R = TypeVar("R")


class TaskPool(Protocol):
    """Runs tasks."""

    def map(self, function: Callable[[T], R], tasks: Iterable[T]) -> Iterator[R]:
        """The result of each task, in their order; only a few run ahead of the consumer.

        Raises:
            EmbedmillError: as a task did.
            MachineError: a worker ended without a result.
        """
        ...


@dataclass(frozen=True)
class TaskRequest:
    """The workers that a stage asks for.

    Attributes:
        stage: its name, for error messages.
        workers: processes, or Ray tasks at once; 0: as many as there are cores.
        cpus: of each task, where Ray places it.
        todo: what lowers the memory of a task beside fewer workers, for error messages.
        of_command: whether it is the command of that name which asks, by its option --workers.
    """

    stage: str
    workers: int = 0
    cpus: int = 1
    todo: str = ""
    of_command: bool = False

    @property
    def name(self) -> str:
        """Who asks, for error messages."""
        return f"`embedmill {self.stage}`" if self.of_command else f"stage '{self.stage}'"

    @property
    def lower_memory(self) -> str:
        """What to do where a task runs out of memory."""
        setting = "--workers" if self.of_command else f"{self.stage}.workers"
        return f"Lower {setting}{self.todo and f' or {self.todo}'}"


Launcher = Callable[[TaskRequest], AbstractContextManager[TaskPool]]
Launchers = Mapping[str, Launcher]


def usable_cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def choose_launcher(asked: str, root: str, *, large: bool) -> str:
    """The launcher of a stage: "auto" is "inline" for what is small, else processes or a cluster.

    Args:
        asked: "inline", "processes", "ray" or "auto".
        root: of the run; memory:// lives in one process.
        large: whether the stage takes much longer than processes take to start.
    """
    if asked != "auto":
        return asked
    if not large or root.startswith("memory:"):
        return "inline"
    if os.environ.get("RAY_ADDRESS"):
        return "ray"
    return "processes" if usable_cores() > 1 else "inline"


def map_in_order(
    submit: Callable[[T], Any], result: Callable[[Any], R], tasks: Iterable[T], most: int
) -> Iterator[R]:
    """Submit tasks, at most `most` ahead of the consumer, and give results in their order.

    Args:
        submit: starts a task; gives a handle.
        result: waits for the result of a handle.
        tasks: arguments of `submit`.
        most: handles in flight at a time.
    """
    in_flight: deque[Any] = deque()
    for task in tasks:
        in_flight.append(submit(task))
        if len(in_flight) >= most:
            yield result(in_flight.popleft())
    while in_flight:
        yield result(in_flight.popleft())


class _Inline:
    """One task after another, in this process."""

    def map(self, function: Callable[[T], R], tasks: Iterable[T]) -> Iterator[R]:
        return map(function, tasks)


@contextlib.contextmanager
def inline(request: TaskRequest) -> Iterator[TaskPool]:
    """Run tasks in this process."""
    yield _Inline()


class _Processes:
    """Worker processes of this machine."""

    def __init__(self, executor: ProcessPoolExecutor, workers: int, request: TaskRequest) -> None:
        self._executor = executor
        self._workers = workers
        self._request = request

    def map(self, function: Callable[[T], R], tasks: Iterable[T]) -> Iterator[R]:
        def submit(task: T) -> Future[R]:
            return self._executor.submit(function, task)

        try:
            # One more than there are workers, so that no worker waits for the consumer.
            yield from map_in_order(submit, _result, tasks, self._workers + 1)
        except BrokenProcessPool as error:
            raise MachineError(
                f"a process of {self._request.name} was ended from outside, most often for want "
                "of memory; nothing was published",
                where=self._request.stage,
                todo=f"{self._request.lower_memory} and run the same command again",
            ) from error


@contextlib.contextmanager
def processes(request: TaskRequest) -> Iterator[TaskPool]:
    """Run tasks in processes of this machine, which end with this one."""
    workers = request.workers or usable_cores()
    context = multiprocessing.get_context("spawn")  # a fork would copy locks of threads
    worker_end, driver_end = context.Pipe(duplex=False)
    executor = ProcessPoolExecutor(workers, context, _start_worker, (worker_end,))
    try:
        yield _Processes(executor, workers, request)
    except BaseException:
        driver_end.close()  # ends the workers at once: a task may take minutes
        raise
    finally:
        executor.shutdown(cancel_futures=True)
        driver_end.close()
        worker_end.close()


def _result(future: Future[R]) -> R:
    return future.result()


def _start_worker(pipe: Connection) -> None:
    """In a worker: leave Ctrl-C to the driver, and exit when the driver closes its end or dies."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    exit_with_driver(pipe)


# Jobs add Ray.
LAUNCHERS: dict[str, Launcher] = {"inline": inline, "processes": processes}
