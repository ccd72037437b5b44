"""A worker process of `worker_processes`: takes its assignment, trains, sends its messages."""

from __future__ import annotations

import os
import sys
import threading
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

import torch
import torch.distributed as dist

from embedmill.pipeline.child_process import exit_with_driver
from embedmill.pipeline.errors import EmbedmillError
from embedmill.pipeline.log import SentProgress
from embedmill.pipeline.train.collectives import Group, StoppedError
from embedmill.pipeline.train.loop import train_worker
from embedmill.pipeline.train.worker_processes import Assignment

__all__ = ["main"]


def main() -> None:
    """Train; the number of the socket's file descriptor is the last argument."""
    messages = Connection(int(sys.argv[-1]))

    def send(kind: str, *values: Any) -> None:
        messages.send((kind, values))

    assignment: Assignment = messages.recv()
    exit_with_driver(messages)
    _join(assignment)
    progress = SentProgress(*(partial(send, kind) for kind in ("update", "note", "record")))
    try:
        group = Group.current(assignment.task.run.config.train.device)
        send("result", train_worker(assignment.task, group, progress))
    except StoppedError:
        _await_driver()  # the worker that failed says why
    except EmbedmillError as error:
        send("error", error)
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


def _await_driver() -> None:
    """Stay until the driver, which has the cause of the failure, ends this process."""
    threading.Event().wait()
