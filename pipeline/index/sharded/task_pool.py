"""Where tasks of a sharded build run: here, in a process per core, or where a job says.

A task is a function of one picklable argument; its files go to a storage that every worker
sees. Tasks take one thread each and come back in the order they were given, so that the number
of workers and the launcher change nothing but the time.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager
from multiprocessing.connection import Connection
from typing import Any, Protocol, TypeVar

from embedmill.pipeline.config import IndexConfig
from embedmill.pipeline.errors import MachineError

__all__ = ["LAUNCHERS", "Launcher", "Launchers", "Pool", "in_order", "inline", "processes"]

T = TypeVar("T")
R = TypeVar("R")


class Pool(Protocol):
    """Runs tasks."""

    def map(self, task: Callable[[T], R], parts: Iterable[T]) -> Iterator[R]:
        """What the task makes of each part, in their order; few are under way at a time.

        Raises:
            EmbedmillError: as the task did.
            MachineError: a worker ended without an answer.
        """
        ...


Launcher = Callable[[IndexConfig], AbstractContextManager[Pool]]
Launchers = Mapping[str, Launcher]


def in_order(
    submit: Callable[[T], Any], take: Callable[[Any], R], parts: Iterable[T], most: int
) -> Iterator[R]:
    """Submit parts, at most so many ahead of what is taken, and take answers in their order."""
    waiting: deque[Any] = deque()
    for part in parts:
        waiting.append(submit(part))
        if len(waiting) >= most:
            yield take(waiting.popleft())
    while waiting:
        yield take(waiting.popleft())


class _Inline:
    """One task after another, in this process."""

    def map(self, task: Callable[[T], R], parts: Iterable[T]) -> Iterator[R]:
        return map(task, parts)


@contextlib.contextmanager
def inline(config: IndexConfig) -> Iterator[Pool]:
    """No workers."""
    yield _Inline()


class _Processes:
    """Workers of this machine, each a process."""

    def __init__(self, executor: ProcessPoolExecutor, workers: int) -> None:
        self._executor = executor
        self._workers = workers

    def map(self, task: Callable[[T], R], parts: Iterable[T]) -> Iterator[R]:
        def submit(part: T) -> Future[R]:
            return self._executor.submit(task, part)

        try:
            # One more than there are workers: none waits for the next to be asked for.
            yield from in_order(submit, _result, parts, self._workers + 1)
        except BrokenProcessPool as error:
            raise MachineError(
                "a process that builds the index was ended from outside, most often for want of "
                "memory; nothing was published",
                where="index",
                todo="Lower index.workers or index.shard_bytes and run the same command again",
            ) from error


@contextlib.contextmanager
def processes(config: IndexConfig) -> Iterator[Pool]:
    """So many processes of this machine as `index.workers` says; they end with this one."""
    workers = config.workers or len(os.sched_getaffinity(0))
    context = multiprocessing.get_context("spawn")  # a fork would copy locks of FAISS's threads
    theirs, ours = context.Pipe(duplex=False)
    executor = ProcessPoolExecutor(workers, context, _begin, (theirs,))
    try:
        yield _Processes(executor, workers)
    except BaseException:
        ours.close()  # tasks take minutes: they are not waited for
        raise
    finally:
        executor.shutdown(cancel_futures=True)
        ours.close()
        theirs.close()


def _result(future: Future[R]) -> R:
    return future.result()


def _begin(driver: Connection) -> None:
    """In a worker: leave Ctrl-C to the driver, and end when it lets go of its end or is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(driver,), daemon=True).start()


def _end_with(driver: Connection) -> None:
    driver.poll(None)
    os._exit(1)


# Jobs add those that need an engine.
LAUNCHERS: dict[str, Launcher] = {"inline": inline, "processes": processes}
