"""A worker process of `worker_processes`: takes its assignment, trains, sends its messages."""

from __future__ import annotations

import os
import sys
import threading
import time
from multiprocessing.connection import Connection
from typing import Any

import torch
import torch.distributed as dist

from embedmill.pipeline.errors import EmbedmillError
from embedmill.pipeline.train.collectives import Group, StoppedError
from embedmill.pipeline.train.loop import train_worker
from embedmill.pipeline.train.worker_processes import Assignment

__all__ = ["main"]

_INTERVAL = 0.2  # seconds between two updates


class _Sender:
    """A worker's progress, sent to the driver; updates at intervals."""

    def __init__(self, messages: Connection) -> None:
        self._messages = messages
        self._sent = 0.0

    def update(self, done: int, total: int | None, unit: str, **facts: float) -> None:
        now = time.monotonic()
        if now - self._sent >= _INTERVAL:
            self._sent = now
            self._messages.send(("update", (done, total, unit, facts)))

    def note(self, text: str) -> None:
        self._messages.send(("note", text))

    def record(self, line: dict[str, Any]) -> None:
        self._messages.send(("record", line))


def main() -> None:
    """Train; the number of the socket's file descriptor is the last argument."""
    messages = Connection(int(sys.argv[-1]))
    assignment: Assignment = messages.recv()
    threading.Thread(target=_exit_with_driver, args=(messages,), daemon=True).start()
    _join(assignment)
    try:
        group = Group.current(assignment.task.run.config.train.device)
        messages.send(("result", train_worker(assignment.task, group, _Sender(messages))))
    except StoppedError:
        _await_driver()  # the worker that failed says why
    except EmbedmillError as error:
        messages.send(("error", error))
        _await_driver()
    os._exit(0)  # without joining the threads of torch and of the process group


def _join(assignment: Assignment) -> None:
    """Connect to the other workers."""
    settings = assignment.task.run.config.train
    torch.set_num_threads(settings.threads)
    if settings.device == "cuda":
        torch.cuda.set_device(assignment.rank)
    if assignment.world > 1:
        dist.init_process_group(
            "nccl" if settings.device == "cuda" else "gloo",
            init_method=f"file://{assignment.rendezvous}",
            rank=assignment.rank,
            world_size=assignment.world,
        )


def _exit_with_driver(messages: Connection) -> None:
    """End this process when the driver closes its end or dies."""
    messages.poll(None)
    os._exit(1)


def _await_driver() -> None:
    """Stay until the driver, which has the cause of the failure, ends this process."""
    threading.Event().wait()
