"""Negatives: their corrections against the full softmax, and hits of any worker's batch."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from embedmill.pipeline.errors import ConfigError
from embedmill.pipeline.store.run import Run
from embedmill.pipeline.train import Group, WorkerTask
from embedmill.pipeline.train.assembly import load_trainer
from embedmill.pipeline.train.checkpoints.checkpoint import Cursor
from embedmill.pipeline.train.data.epoch_order import EpochOrder
from embedmill.pipeline.train.data.negatives import NegativeSampler, negative_sampler
from embedmill.pipeline.train.losses import LossInput, LossSettings, sampled_softmax
from embedmill.pipeline.train.step import EpochSteps, GradientStepper
from embedmill.pipeline.train.trainer import Trainer
from tests.support.artifacts import arrays_of
from tests.support.ranks import run_ranks
from tests.support.runs import planted, store
from tests.support.sweeps import sweep
from tests.support.worlds import config

COUNTS = torch.tensor([1, 2, 5])  # train events of each item; the positive is the rarest
# Power of the drawn ones, and which share of the negatives comes from the batch.
SOURCES = {
    "uniform": (0.0, 0.0),
    "count to a power": (0.75, 0.0),
    "count": (1.0, 0.0),
    "in batch": (0.0, 1.0),
    "uniform and in batch, 1:1": (0.0, 0.5),
    "count to a power and in batch, 3:1": (0.75, 0.25),
}
sources = pytest.mark.parametrize("source", SOURCES)


def drawer(source: str, number: int) -> NegativeSampler:
    power, share = SOURCES[source]
    taken = int(number * share)
    return negative_sampler(COUNTS, number=number - taken, power=power, from_batch=taken, seed=5)


def compositions(total: int, parts: int) -> Iterator[tuple[int, ...]]:
    if parts == 1:
        yield (total,)
        return
    for first in range(total + 1):
        for rest in compositions(total - first, parts - 1):
            yield (first, *rest)


def outcomes(number: int, chance: list[float]) -> dict[tuple[int, ...], float]:
    """How often each item is drawn, and the probability of that."""
    found = {}
    for counts in compositions(number, len(chance)):
        ways = math.factorial(number)
        for count in counts:
            ways //= math.factorial(count)
        found[counts] = ways * math.prod(p**c for p, c in zip(chance, counts, strict=True))
    return found


def every_outcome(source: str, number: int) -> dict[tuple[int, ...], float]:
    """Of the drawn ones and the batch's, which are independent, together."""
    power, share = SOURCES[source]
    taken = int(number * share)
    drawn = outcomes(number - taken, (COUNTS**power / (COUNTS**power).sum()).tolist())
    shown = outcomes(taken, (COUNTS / COUNTS.sum()).tolist())
    found: dict[tuple[int, ...], float] = {}
    for one, chance in drawn.items():
        for other, besides in shown.items():
            both = tuple(a + b for a, b in zip(one, other, strict=True))
            found[both] = found.get(both, 0.0) + chance * besides
    return found


def gradient(negative_K: Tensor, log_expected_K: Tensor) -> Tensor:
    """Of one event, by its user and by all items."""
    user_UD = torch.tensor([[0.3, -0.2]], dtype=torch.float64)
    item_VD = torch.tensor([[0.5, 0.4], [-0.6, 0.3], [0.8, 0.9]], dtype=torch.float64)
    step = LossInput(
        user_UD, item_VD, torch.tensor([0]), torch.tensor([0]), negative_K,
        log_expected_K.double(), torch.ones(1).double(), torch.ones(1), 1,
    )  # fmt: skip
    result = sampled_softmax(step, LossSettings(temperature=0.5))
    return torch.cat([result.user_UD, result.item_VD])


def expected_gradient(source: str, number: int, *, logq: bool) -> Tensor:
    """The exact mean over all that can be drawn."""
    total = torch.zeros(4, 2, dtype=torch.float64)
    sampler = drawer(source, number)
    for counts, chance in every_outcome(source, number).items():
        rows_K = torch.arange(3).repeat_interleave(torch.tensor(counts))
        log_expected_K = sampler.log_expected(rows_K, 1 << 20)
        if not logq:
            log_expected_K = torch.zeros_like(log_expected_K)
        total += chance * gradient(rows_K, log_expected_K)
    return total


def without_end(source: str, *, logq: bool) -> Tensor:
    """The expected gradient for ever more negatives: Richardson's extrapolation in 1 / K."""
    few, more, most = (expected_gradient(source, number, logq=logq) for number in (8, 16, 32))
    return (4 * (2 * most - more) - (2 * more - few)) / 3


@pytest.mark.parametrize(
    "source", sweep([*SOURCES], always=["uniform", "count to a power and in batch, 3:1"])
)
def test_the_expected_gradient_is_that_of_the_full_softmax(source: str) -> None:
    """But for a bias of the order of 1 / K: it halves as K doubles, and vanishes in the limit."""
    exact = gradient(torch.arange(3), torch.zeros(3))
    bias = [
        float((expected_gradient(source, number, logq=True) - exact).norm()) for number in (16, 32)
    ]
    assert bias[1] < 0.05 * float(exact.norm())
    assert 1.8 < bias[0] / bias[1] < 2.4
    assert float((without_end(source, logq=True) - exact).norm()) < 2e-3 * float(exact.norm())
    assert float((without_end(source, logq=False) - exact).norm()) > 0.1 * float(exact.norm())


@sources
def test_the_corrected_sum_is_that_of_the_catalogue(source: str) -> None:
    """The exact mean of sum exp(score - log expected) is the sum over all items, for any K."""
    score_I = torch.tensor([-1.0, 0.5, 1.5])
    sampler, total = drawer(source, 4), 0.0
    for counts, chance in every_outcome(source, 4).items():
        rows_K = torch.arange(3).repeat_interleave(torch.tensor(counts))
        corrected_K = score_I[rows_K] - sampler.log_expected(rows_K, 100)
        total += chance * float(corrected_K.exp().sum())
    assert total == pytest.approx(float(score_I.exp().sum()), rel=1e-5)


@pytest.mark.parametrize("power", [0.0, 0.75, 1.0])
def test_draws_follow_the_counts(power: float) -> None:
    sampler, steps = negative_sampler(COUNTS, number=500, power=power, from_batch=0, seed=3), 40
    drawn_K = torch.cat([sampler.draw(step) for step in range(steps)])
    chance_I = COUNTS**power / (COUNTS**power).sum()
    seen_I = torch.bincount(drawn_K, minlength=3) / len(drawn_K)
    spread = 4 * (chance_I * (1 - chance_I) / len(drawn_K)).sqrt()
    assert ((seen_I - chance_I).abs() < spread).all()


def test_places_are_drawn_evenly_and_once() -> None:
    sampler = negative_sampler(COUNTS, number=0, power=0.0, from_batch=3, seed=3)
    drawn = [sampler.batch_positions(step, 10) for step in range(2000)]
    assert all(len(position_K.unique()) == 3 for position_K in drawn)
    seen = torch.bincount(torch.cat(drawn), minlength=10) / 2000
    assert seen == pytest.approx(0.3, abs=4 * math.sqrt(0.3 * 0.7 / 2000))
    assert sampler.batch_positions(0, 2).tolist() == [0, 1]


def in_batch(folder: Path, **changes: Any) -> Run:
    train = {"negatives": 3, "in_batch": True, "batch_size": 30, "dim": 4, **changes}
    return planted(folder, train=train)


def trainer_of(run: Run) -> Trainer:
    return load_trainer(WorkerTask.of(run, run.writer("train")), Group.current(), Cursor())


def epoch_of(trainer: Trainer) -> EpochOrder:
    runtime = trainer.runtime
    return EpochOrder.shuffled(
        trainer.data.events, trainer.plan, runtime.layout, seed=runtime.seed, epoch=0
    )


def all_candidates(run: Run) -> list[list[int]]:
    trainer = trainer_of(run)
    epoch, found = epoch_of(trainer), []
    assert isinstance(trainer.stepper, GradientStepper)
    steps = EpochSteps(trainer.stepper, epoch, 0, trainer.learning_rate)
    for step in range(trainer.plan.steps):
        item_B = trainer.data.events.item_E[epoch.batch(step)].long()
        found.append(steps.candidates(step, item_B).tolist())
    return found


def both_candidates(every: Run, some: Run) -> list[list[list[int]]]:
    return [all_candidates(every), all_candidates(some)]


def test_every_worker_has_the_same_negatives(tmp_path: Path) -> None:
    runs = in_batch(tmp_path / "all"), in_batch(tmp_path / "seven", in_batch_negatives=7)
    whole, seven = one = both_candidates(*runs)
    assert run_ranks(both_candidates, 3, tmp_path, *runs) == [one] * 3
    assert {len(step) for step in seven} == {3 + 7}
    # Over an epoch an item comes as often as it has events: as often as is expected of it.
    shown = torch.cat([torch.tensor(step[3:]) for step in whole])
    count_I = trainer_of(runs[0]).data.negatives.count_I.long()
    assert torch.equal(torch.bincount(shown, minlength=len(count_I)), count_I)


def one_step(run: Run) -> float:
    return trainer_of(run).start_epoch()(0)


def test_hits_of_another_workers_batch_are_left_out(tmp_path: Path) -> None:
    """Users 0 and 2 are at the first of two workers, 1 and 3 at the second."""
    settings = {"negatives": 0, "in_batch": True, "logq": False, "temperature": 0.5, "dim": 4}
    run = Run(config(tmp_path, "log.tsv", run={"partitions": 4}, train=settings))
    events = [(0, 0, 1.0), (1, 0, 1.0), (2, 0, 1.0), (3, 1, 1.0)]
    store(run, 4, 2, {"train": arrays_of(events), "valid": arrays_of([]), "test": arrays_of([])})
    trainer = trainer_of(run)
    users, items = (
        torch.nn.functional.normalize(
            t.weight[t.embedding.local_index(torch.arange(t.embedding.rows))]
        )
        for t in (trainer.model.users, trainer.model.items)
    )
    score = (users @ items.T / 0.5).tolist()
    # Item 0 is thrice in the batch, item 1 once: what is not the positive counts, the rest not.
    losses = [math.log1p(math.exp(score[user][1] - score[user][0])) for user in range(3)]
    losses.append(math.log1p(3 * math.exp(score[3][0] - score[3][1])))
    expected = sum(losses) / 4
    assert one_step(run) == pytest.approx(expected, rel=1e-5)
    assert run_ranks(one_step, 2, tmp_path, run) == pytest.approx([expected] * 2, rel=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"in_batch_negatives": 4}, "in_batch_negatives: needs train.softmax.in_batch = true"),
        ({"in_batch": True, "in_batch_negatives": 99, "batch_size": 9}, "at most train.batch_size"),
    ],
)
def test_settings_that_do_not_go_together(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config("runs", "log.tsv", train=changes)


@pytest.mark.parametrize("source", ["uniform", "uniform and in batch, 1:1"])
def test_rows_out_of_the_catalogue_are_never_drawn(source: str) -> None:
    power, share = SOURCES[source]
    counts, inactive = torch.tensor([3, 0, 2, 0, 4]), torch.tensor([1, 4])
    taken = int(64 * share)
    one = negative_sampler(
        counts, number=64, power=power, from_batch=taken, seed=5, inactive=inactive
    )
    rows_K = one.draw(0)
    assert set(rows_K.tolist()) == {0, 2, 3}
    # As if the catalogue were the three others; row 4, shared by many ids, may be in the batch.
    three = negative_sampler(counts[[0, 2, 3]], number=64, power=power, from_batch=0, seed=5)
    place = torch.tensor([0, 0, 1, 2, 0])
    alone = negative_sampler(
        counts, number=64, power=power, from_batch=0, seed=5, inactive=inactive
    )
    expected = three.log_expected(place[rows_K], 64)
    assert torch.equal(alone.log_expected(rows_K, 64), expected)
    if taken:
        batch = float(one.log_expected(torch.tensor([4]), 64).exp())
        assert batch == pytest.approx(taken * 4 / 9)
