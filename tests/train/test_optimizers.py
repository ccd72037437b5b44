"""Optimizers against torch's and by hand; the learning rate step by step."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from embedmill.pipeline.train.assembly import WorkerTask, load_trainer
from embedmill.pipeline.train.checkpoints.checkpoint import Cursor, Identity
from embedmill.pipeline.train.collectives import Group
from embedmill.pipeline.train.tables.optimizers import OPTIMIZERS, Update
from tests.support.runs import planted

ROWS, WIDTH = 6, 3
STEPS = [[0, 2, 5], [2], [0, 1, 2, 3], [5, 1]]  # rows of each step


def gradient(step: int, rows: list[int]) -> Tensor:
    return torch.randn(len(rows), WIDTH, generator=torch.Generator().manual_seed(step))


def trained(name: str, columns: tuple[slice, ...]) -> Tensor:
    weight_LD = torch.ones(ROWS, WIDTH)
    kept = OPTIMIZERS[name].state(WIDTH, columns)
    state = {key: torch.zeros(ROWS, width) for key, width in kept.items()}
    for step, rows in enumerate(STEPS):
        update = Update(torch.tensor(rows), gradient(step, rows), 0.1, step + 1)
        OPTIMIZERS[name].update(weight_LD, state, columns, update)
    return weight_LD


def test_adam_is_torchs_sparse_adam() -> None:
    table = nn.Embedding.from_pretrained(torch.ones(ROWS, WIDTH), freeze=False, sparse=True)
    theirs = torch.optim.SparseAdam(table.parameters(), lr=0.1)
    for step, rows in enumerate(STEPS):
        theirs.zero_grad()
        (table(torch.tensor(rows)) * gradient(step, rows)).sum().backward()
        theirs.step()
    torch.testing.assert_close(trained("adam", (slice(0, WIDTH),)), table.weight.detach())


@pytest.mark.parametrize("columns", [(slice(0, 3),), (slice(0, 2), slice(2, 3))])
def test_row_wise_adagrad_by_plain_loops(columns: tuple[slice, ...]) -> None:
    weight = [[1.0] * WIDTH for _ in range(ROWS)]
    squares = [[0.0] * len(columns) for _ in range(ROWS)]
    for step, rows in enumerate(STEPS):
        for row, pushed in zip(rows, gradient(step, rows).tolist(), strict=True):
            for at, part in enumerate(columns):
                own = pushed[part]
                squares[row][at] += sum(g * g for g in own) / len(own)
                for place, g in zip(range(part.start, part.stop), own, strict=True):
                    weight[row][place] -= 0.1 * g / math.sqrt(squares[row][at])
    torch.testing.assert_close(trained("adagrad", columns), torch.tensor(weight))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_rows_outside_the_batch_stay_as_they_are(name: str) -> None:
    assert torch.equal(trained(name, (slice(0, WIDTH),))[4], torch.ones(WIDTH))


@pytest.mark.parametrize(
    ("schedule", "end"), [("constant", 1.0), ("linear", 1 / 18), ("cosine", 0.0076)]
)
def test_the_rate_warms_up_and_falls(schedule: str, end: float, tmp_path: Path) -> None:
    train: dict[str, Any] = {
        "schedule": schedule, "warmup_steps": 4, "learning_rate": 0.5, "epochs": 2, "dim": 2,
    }  # fmt: skip
    run = planted(tmp_path, train=train | {"batch_size": 1})
    events = run.artifact("shards").counters["train"]
    run = planted(tmp_path / "fits", train=train | {"batch_size": -(-events // 11)})
    task = WorkerTask(run, Identity("", {}, {}))
    rates = []
    for epoch in range(2):
        trainer = load_trainer(task, Group(), Cursor(epoch=epoch))
        rates += [trainer.learning_rate(step) / 0.5 for step in range(trainer.plan.steps)]
    assert len(rates) == 22
    assert rates[:5] == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0])
    assert rates[-1] == pytest.approx(end, abs=1e-4)
    assert rates[4:] == sorted(rates[4:], reverse=True)
