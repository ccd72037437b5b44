"""Other devices and precisions train what the CPU trains in float32, as far as they can."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional

from embedmill.pipeline import train
from embedmill.pipeline.log import Quiet
from embedmill.pipeline.store.run import Run
from embedmill.pipeline.train.collectives import Group
from embedmill.pipeline.train.losses import LossInput, LossSettings
from embedmill.pipeline.train.losses.row_gradients import multiply
from embedmill.pipeline.train.losses.softmax import sampled_softmax
from tests.support.ranks import run_ranks
from tests.support.runs import planted
from tests.support.trained import tables
from tests.support.worlds import PlantedWorld

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]
WORLD = PlantedWorld(users=120, items=40, clusters=4, events_per_user=9)
SETTINGS = {"epochs": 2, "dim": 16, "patience": 0}


def step_on(device: str) -> LossInput:
    draw = torch.Generator().manual_seed(3)
    parts = {
        "user_UD": torch.randn(40, 32, generator=draw),
        "item_VD": torch.randn(90, 32, generator=draw),
        "user_B": torch.randint(40, (64,), generator=draw),
        "positive_B": torch.randint(90, (64,), generator=draw),
        "negative_K": torch.randint(90, (50,), generator=draw),
        "log_expected_K": torch.full((50,), -1.0),
        "weight_B": torch.ones(64),
        "target_B": torch.ones(64),
    }
    return LossInput(**{k: v.to(device) for k, v in parts.items()}, size=64)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("similarity", ["cosine", "dot"])
def test_bfloat16_points_where_float32_does(device: str, similarity: str) -> None:
    step = step_on(device)
    temperature = {"cosine": 0.1, "dot": 1.0}[similarity]
    exact = sampled_softmax(step_on("cpu"), LossSettings(False, similarity, temperature))
    low = LossSettings(False, similarity, temperature, rounded=True)
    rough = sampled_softmax(step, low)
    assert rough.loss.item() == pytest.approx(exact.loss.item(), rel=0.01)
    assert rough.loss.item() != exact.loss.item()
    for got, wanted in ((rough.user_UD, exact.user_UD), (rough.item_VD, exact.item_VD)):
        assert got.dtype == torch.float32
        same = functional.cosine_similarity(got.cpu().flatten(), wanted.flatten(), dim=0)
        assert 0.999 < same < 1 - 1e-9


@pytest.mark.parametrize("device", DEVICES)
def test_factors_are_rounded_and_sums_are_not(device: str) -> None:
    # 1 + 2 ** -9 is no bfloat16 (8 bits); 256 ones and 1 are 257, which is none either.
    left = torch.full((1, 4), 1 + 2.0**-9, device=device)
    right, out = torch.ones((4, 1), device=device), torch.empty((1, 1), device=device)
    multiply(left, right, out)
    assert out.item() == 4 + 4 * 2.0**-9
    multiply(left, right.bfloat16(), out)
    assert out.item() == 4
    total = torch.full((1, 1), 256.0, device=device)
    multiply(left[:, :1].bfloat16(), right[:1], total, addend=total)
    assert total.item() == 257


def test_bfloat16_is_learnt_with_as_well(tmp_path: Path) -> None:
    settings = {**SETTINGS, "epochs": 25, "in_batch": True, "precision": "bfloat16"}
    run = planted(tmp_path / "1", WORLD, train=settings)
    train.build(run, run.writer("train"), Quiet())
    items = functional.normalize(tables(run)["items"])
    near = (items @ items.T - 2 * torch.eye(40)).topk(5).indices % WORLD.clusters
    assert (near == torch.arange(40)[:, None] % WORLD.clusters).float().mean() > 0.9
    exact = planted(tmp_path / "2", WORLD, train={**settings, "precision": "float32"})
    train.build(exact, exact.writer("train"), Quiet())
    assert not torch.equal(tables(exact)["items"], tables(run)["items"])
    last = [r.artifact("train").read_json("history.json")[-1]["ndcg@10"] for r in (run, exact)]
    assert last[0] == pytest.approx(last[1], abs=0.02)


def test_values_come_to_the_device_of_the_workers() -> None:
    values = torch.arange(5)
    assert torch.equal(Group().to_device(values), values)


@pytest.mark.gpu
@pytest.mark.parametrize("objective", ["softmax", "rating", "ials", "spectral"])
def test_cuda_trains_what_the_cpu_trains(objective: str, tmp_path: Path) -> None:
    changes: dict[str, Any] = {"objective": objective, "checkpoint_steps": 4}
    if objective == "softmax":
        changes["in_batch"] = True
    found = []
    for device in ("cpu", "cuda"):
        settings = {**SETTINGS, **changes, "device": device}
        run = planted(tmp_path / device, WORLD, train=settings)
        train.build(run, run.writer("train"), Quiet())
        found.append(tables(run))
    for name, expected in found[0].items():
        torch.testing.assert_close(found[1][name], expected, rtol=1e-2, atol=1e-3)


@pytest.mark.gpu
def test_pinned_values_arrive_whole() -> None:
    group = Group(device=torch.device("cuda"))
    values = torch.arange(1 << 20)
    assert torch.equal(group.to_device(values).cpu(), values)


def on_cuda(run: Run) -> train.TrainingResult:
    """A rank with a GPU of its own."""
    torch.cuda.set_device(torch.distributed.get_rank())
    group = train.Group.current("cuda")
    return train.train_worker(train.WorkerTask.of(run, run.writer("train")), group, Quiet())


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_two_gpus_train_what_one_does(tmp_path: Path) -> None:
    one = planted(tmp_path / "1", WORLD, train={**SETTINGS, "in_batch": True, "device": "cuda"})
    train.build(one, one.writer("train"), Quiet())
    run = planted(tmp_path / "2", WORLD, train={**SETTINGS, "in_batch": True, "device": "cuda"})
    answers = run_ranks(on_cuda, 2, tmp_path, run, backend="nccl")
    assert isinstance(answers[0], train.TrainingResult), answers
    for name, expected in tables(one).items():
        torch.testing.assert_close(tables(run)[name], expected, rtol=1e-2, atol=1e-3)
