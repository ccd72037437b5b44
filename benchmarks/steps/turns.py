"""What the contenders of `train_step.py` share: their task, its events, and taking turns.

It is read by the Pythons of peers too and needs nothing but numpy and torch.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.distributed as dist


@dataclass(frozen=True)
class Task:
    """One rank's task. `batch` is a worker's, `negatives` are shared by all workers' batches."""

    rank: int
    world: int
    store: str
    users: int
    items: int
    dim: int
    batch: int
    negatives: int
    steps: int
    optimizer: str
    loss: str = "softmax"

    @property
    def table(self) -> dict[str, int]:
        """Rows by table."""
        return {"users": self.users, "items": self.items}


def joined() -> Task:
    """The task of the command line; the rank has joined its group, on one thread."""
    task = Task(**json.loads(sys.argv[1]))
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{task.store}", rank=task.rank, world_size=task.world
    )
    return task


def events(task: Task) -> tuple[torch.Tensor, torch.Tensor]:
    """Users and items of `steps` global batches, the same at every rank, int64 [E].

    Ids follow a power law: the r-th most frequent of N has probability in proportion to
    r ** -0.8 (1 % of the ids in 40 % of the events), and no order of frequency in the tables.
    """
    source = np.random.default_rng(7)
    drawn = []
    for rows in (task.users, task.items):
        shares = source.random(task.steps * task.world * task.batch)
        ranks = np.minimum((shares**5 * rows).astype(np.int64), rows - 1)
        drawn.append(torch.from_numpy(source.permutation(rows)[ranks]))
    return drawn[0], drawn[1]


def batches(task: Task) -> list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """By step: this rank's users [B] and items [B], and all ranks' negatives [K]."""
    user_E, item_E = events(task)
    source = torch.Generator().manual_seed(11)
    slices = []
    for step in range(task.steps):
        start = (step * task.world + task.rank) * task.batch
        part = slice(start, start + task.batch)
        negative_K = torch.randint(task.items, (task.negatives,), generator=source)
        slices.append((user_E[part], item_E[part], negative_K))
    return slices


def take_turns(take: Callable[[int], object]) -> None:
    """Take as many steps as each line of standard input says, and answer with the seconds."""
    taken = 0
    print("ready", flush=True)
    for line in sys.stdin:
        started = time.perf_counter()
        for _ in range(int(line)):
            take(taken)
            taken += 1
        print(f"seconds {time.perf_counter() - started}", flush=True)
    dist.destroy_process_group()


def stock_loss(user_BD: torch.Tensor, item_BD: torch.Tensor, negative_KD: torch.Tensor,
               temperature: float) -> torch.Tensor:  # fmt: skip
    """Sampled softmax of cosines as one writes it: `cross_entropy` of the positive's column."""
    user_BD = torch.nn.functional.normalize(user_BD)
    item_BD = torch.nn.functional.normalize(item_BD)
    negative_KD = torch.nn.functional.normalize(negative_KD)
    positive_B1 = (user_BD * item_BD).sum(1, keepdim=True)
    logit_BC = torch.cat([positive_B1, user_BD @ negative_KD.T], 1) / temperature
    target_B = torch.zeros(len(user_BD), dtype=torch.int64)
    return torch.nn.functional.cross_entropy(logit_BC, target_B)
