"""The implicit part of rating vectors: steps beside SVD++ written out, and when factors change."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from embedmill.pipeline.train import Group, WorkerTask
from embedmill.pipeline.train.assembly import load_trainer
from embedmill.pipeline.train.checkpoints.checkpoint import Cursor
from embedmill.pipeline.train.data.epoch_order import EpochOrder
from embedmill.pipeline.train.implicit_part import pending_steps
from embedmill.pipeline.train.step import GradientStepper
from embedmill.pipeline.train.trainer import Trainer
from tests.support.runs import planted

RATE, L2, L2_BIAS, FACTOR_RATE, DIM = 0.1, 0.5, 0.03, 0.3, 3


class WrittenOut:
    """SVD++ with an implicit part of items too: dense, by autograd, with all of its factors."""

    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer
        tables = trainer.model.users, trainer.model.items
        self.vectors = [table.weight[:, :DIM].clone() for table in tables]
        self.biases = [torch.zeros(len(vector)) for vector in self.vectors]
        self.factors = [torch.zeros_like(vector) for vector in reversed(self.vectors)]
        self.squares = [torch.zeros(len(t)) for t in (*self.vectors, *self.biases, *self.factors)]
        events = trainer.data.events
        users, items = (table.embedding for table in tables)
        self.rows = [
            users.local_index(events.user_E.long()),
            items.local_index(events.item_E.long()),
        ]
        self.target_E = (events.weight_E - trainer.model.settings.mean) / (
            trainer.model.settings.deviation
        )
        seen_UI = torch.zeros(len(self.vectors[0]), len(self.vectors[1]))
        seen_UI[self.rows[0], self.rows[1]] = 1
        self.counts = [seen_UI.sum(1), seen_UI.sum(0)]
        self.sums = [
            matrix / count.clamp(min=1).sqrt()[:, None]
            for matrix, count in zip((seen_UI, seen_UI.T), self.counts, strict=True)
        ]
        self.pending = [torch.zeros_like(factor) for factor in self.factors]

    def whole(self) -> list[Tensor]:
        """The vectors with their implicit parts."""
        parts = zip(self.vectors, self.sums, self.factors, strict=True)
        return [vector + sums @ factor for vector, sums, factor in parts]

    def step(self, batch_B: Tensor, rate: float) -> None:
        leaves = [*self.vectors, *self.biases, *self.factors]
        for leaf in leaves:
            leaf.requires_grad_()
        rows = [rows[batch_B] for rows in self.rows]
        users, items = (whole[at] for whole, at in zip(self.whole(), rows, strict=True))
        bias_B = self.biases[0][rows[0]] + self.biases[1][rows[1]]
        loss = ((users * items).sum(1) + bias_B - self.target_E[batch_B]).square().mean()
        for vector, bias, count, at in zip(
            self.vectors, self.biases, self.counts, rows, strict=True
        ):
            scale_B = count[at] ** -0.5
            loss = loss + (scale_B * L2 * vector[at].square().sum(1)).mean()
            loss = loss + (scale_B * L2_BIAS * bias[at].square()).mean()
        gradients = torch.autograd.grad(loss, leaves)
        for at in range(4):
            self._descend(leaves[at], self.squares[at], gradients[at], rate)
        for pending, gradient in zip(self.pending, gradients[4:], strict=True):
            pending += gradient

    def update(self, steps: int, rate: float) -> None:
        for factor, square, pending in zip(
            self.factors, self.squares[4:], self.pending, strict=True
        ):
            self._descend(factor, square, pending / steps, rate)
            pending.zero_()

    @staticmethod
    def _descend(leaf: Tensor, square: Tensor, gradient: Tensor, rate: float) -> None:
        matrix = gradient.reshape(len(leaf), -1)
        square += matrix.square().mean(1)
        with torch.no_grad():
            leaf -= rate * gradient / (square.sqrt() + 1e-8).reshape(-1, *[1] * (leaf.dim() - 1))
        leaf.requires_grad_(False)


def test_steps_are_those_of_svd_plus_plus(tmp_path: Path) -> None:
    settings = {
        "objective": "rating", "dim": DIM, "batch_size": 40, "learning_rate": RATE, "epochs": 4,
        "l2": L2, "l2_bias": L2_BIAS, "implicit_rate": FACTOR_RATE,
    }  # fmt: skip
    run = planted(tmp_path, train=settings)
    trainer = load_trainer(WorkerTask.of(run, run.writer("train")), Group.current(), Cursor())
    expected, steps = WrittenOut(trainer), trainer.plan.steps
    assert isinstance(trainer.stepper, GradientStepper)
    assert trainer.stepper.implicit is not None
    take_step, since = trainer.start_epoch(), 0
    order = EpochOrder.shuffled(
        trainer.data.events, trainer.plan, trainer.runtime.layout,
        seed=trainer.runtime.seed, epoch=0,
    )  # fmt: skip
    for step in range(steps):
        rate = trainer.learning_rate(step)
        expected.step(order.batch(step), rate)
        since += 1
        if pending := pending_steps(step, steps):
            assert pending == since
            expected.update(pending, rate * FACTOR_RATE)
            since = 0
        take_step(step)
    tables = trainer.model.users, trainer.model.items
    for table, whole, bias in zip(tables, expected.whole(), expected.biases, strict=True):
        torch.testing.assert_close(table.weight[:, :DIM], whole, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(table.weight[:, DIM], bias, rtol=1e-3, atol=1e-4)
    assert max(float(factor.abs().max()) for factor in expected.factors) > 0.05


@pytest.mark.parametrize(
    ("steps", "ends"),
    [
        (1, {0: 1}),
        (3, {0: 1, 1: 1, 2: 1}),
        (20, {1: 2, 4: 3, 6: 2, 9: 3, 11: 2, 14: 3, 16: 2, 19: 3}),
    ],
)
def test_factors_change_eight_times_in_an_epoch(steps: int, ends: dict[int, int]) -> None:
    found = {step: pending_steps(step, steps) for step in range(steps)}
    assert {step: number for step, number in found.items() if number} == ends
