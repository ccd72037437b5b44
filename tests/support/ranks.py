"""Starts a function on several ranks of a process group, without Ray."""

from __future__ import annotations

import os
import pickle
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

Work = Callable[..., Any]
# Imported once by the server whose forks the ranks are: a rank then starts in a tenth of a second.
PRELOADED = ["torch", "torch.distributed", "tests.support.trained"]


def run_ranks(work: Work, world: int, folder: Path, *args: Any, backend: str = "gloo") -> list[Any]:
    """What `work(*args)` returns or raises on each of `world` ranks.

    A rank that dies without a word answers with its exit code.
    """
    context = mp.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    store = folder / f"store-{os.urandom(4).hex()}"
    started = []
    for rank in range(world):
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(
            target=_rank, args=(work, rank, world, (backend, str(store)), theirs, args), daemon=True
        )
        process.start()
        theirs.close()
        started.append((process, ours))
    answers = []
    for process, ours in started:
        try:
            answered = ours.poll(240)
            answers.append(pickle.loads(ours.recv_bytes()) if answered else "no answer")  # noqa: S301
        except EOFError:
            process.join(60)
            answers.append(process.exitcode)
    for process, _ in started:
        process.join(10)
        if process.is_alive():
            process.kill()
    return answers


def _rank(
    work: Work,
    rank: int,
    world: int,
    group: tuple[str, str],
    answer: Connection,
    args: tuple[Any, ...],
) -> None:
    torch.set_num_threads(1)
    backend, store = group
    dist.init_process_group(backend, init_method=f"file://{store}", rank=rank, world_size=world)
    try:
        # Pickled here: `send` passes a tensor as a file the sender keeps, gone if it ends first.
        answer.send_bytes(pickle.dumps(work(*args)))
    except Exception as error:
        error.add_note(traceback.format_exc())
        answer.send_bytes(pickle.dumps(error))
    dist.destroy_process_group()
