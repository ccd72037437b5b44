"""The loop: the same tables for any number of workers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from embedmill.pipeline import train
from embedmill.pipeline.log import Quiet
from embedmill.pipeline.store.run import Run
from tests.support.artifacts import arrays_of
from tests.support.ranks import run_ranks
from tests.support.runs import planted, store
from tests.support.sweeps import sweep
from tests.support.trained import EVERY, run_of, tables, train_rank
from tests.support.worlds import PlantedWorld, config


@pytest.mark.parametrize(
    "objective", sweep([*EVERY], always=["softmax", "rating", "ials", "item2vec", "spectral"])
)
def test_one_two_and_three_workers_train_the_same_tables(objective: str, tmp_path: Path) -> None:
    one = run_of(tmp_path / "1", objective)
    train.build(one, one.writer("train"), Quiet())
    history = one.artifact("train").read_json("history.json")
    for world in (2, 3):
        run = run_of(tmp_path / str(world), objective)
        answers = run_ranks(train_rank, world, tmp_path, run, 0)
        for outcome in answers:
            assert isinstance(outcome, train.TrainingResult), outcome
        assert len({json.dumps([f.model_dump() for f in a.files]) for a in answers}) == 1
        assert answers[0].best_epoch == one.manifest("train").counters["best_epoch"]  # type: ignore[union-attr]
        for ours, theirs in zip(answers[0].history, history, strict=True):
            assert ours == pytest.approx(theirs, abs=1e-4)
        expected = tables(one)
        for name, got in tables(run).items():
            torch.testing.assert_close(got, expected[name], rtol=1e-3, atol=1e-4)


def test_early_stop_keeps_the_best_epoch(tmp_path: Path) -> None:
    settings = {"batch_size": 40, "dim": 32, "optimizer": "adagrad", "learning_rate": 0.5,
                "schedule": "constant"}  # fmt: skip
    run = planted(tmp_path, train={**settings, "epochs": 60, "patience": 2})
    train.build(run, run.writer("train"), Quiet())
    artifact = run.artifact("train")
    history = artifact.read_json("history.json")
    best = max(history, key=lambda e: (e["ndcg@10"], -e["epoch"]))["epoch"]
    model = artifact.read_json("model.json")
    assert (model["best_epoch"], model["metric"]) == (best, "ndcg@10")
    assert len(history) == best + 2 < 60
    shorter = planted(tmp_path / "s", train={**settings, "epochs": best, "patience": 0})
    train.build(shorter, shorter.writer("train"), Quiet())
    for name, table in tables(shorter).items():
        assert torch.equal(table, tables(run)[name])


@pytest.mark.parametrize(
    "changes",
    [
        {"objective": "softmax"},
        {"objective": "bpr", "learning_rate": 0.3},
        {"objective": "ccl", "ccl": {"margin": 0.2, "negative_weight": 4.0}},
        {"objective": "ials", "dim": 4, "ials": {"unobserved_weight": 0.1}},
        {"objective": "spectral", "dim": 4, "epochs": 1},
    ],
    ids=lambda changes: changes["objective"],
)
def test_learns_the_planted_clusters(changes: dict[str, Any], tmp_path: Path) -> None:
    world = PlantedWorld(users=120, items=40, clusters=4, events_per_user=9)
    run = planted(tmp_path, world, train={"epochs": 25, "dim": 16, **changes})
    train.build(run, run.writer("train"), Quiet())
    items = torch.nn.functional.normalize(tables(run)["items"])
    near = (items @ items.T - 2 * torch.eye(40)).topk(5).indices % world.clusters
    assert float((near == torch.arange(40)[:, None] % world.clusters).float().mean()) > 0.9


def test_ratings_beat_their_mean(tmp_path: Path) -> None:
    world = PlantedWorld(users=120, items=40, stray=0.3)
    settings = {"objective": "rating", "dim": 4, "epochs": 40, "l2": 0.1, "schedule": "constant"}
    run = planted(tmp_path, world, train=settings)
    train.build(run, run.writer("train"), Quiet())
    history = run.artifact("train").read_json("history.json")
    model = run.artifact("train").read_json("model.json")
    weights = [w for *_, w in world.events()]
    spread = torch.tensor(weights).std().item()
    assert min(e["rmse"] for e in history) < 0.85 * spread
    assert (model["metric"], model["similarity"], model["bias"]) == ("rmse", "dot", True)


def test_ratings_are_learned_alike_on_every_scale(tmp_path: Path) -> None:
    """Of 5 stars, or of 100 points: the same vectors in other units."""
    world = PlantedWorld(users=120, items=40, stray=0.3)
    stars = world.last_splits()
    found = []
    for name, unit, least in (("stars", 1, 0), ("points", 25, -40)):
        points = {
            split: arrays_of([(u, i, unit * w + least) for u, i, w in events])
            for split, events in stars.items()
        }
        run = store(
            Run(config(tmp_path / name, "log.tsv", train={"objective": "rating", "epochs": 5})),
            world.users, world.items, points,
        )  # fmt: skip
        train.build(run, run.writer("train"), Quiet())
        found.append((tables(run), run.artifact("train").read_json("history.json")))
    (one, of_stars), (other, of_points) = found
    for epoch, scaled in zip(of_stars, of_points, strict=True):
        assert scaled["rmse"] == pytest.approx(25 * epoch["rmse"], rel=1e-3)
    units = torch.tensor([5.0] * (one["items"].shape[1] - 1) + [25.0])  # the last is the bias
    torch.testing.assert_close(other["items"], one["items"] * units, rtol=1e-3, atol=1e-4)


def test_more_workers_than_partitions(tmp_path: Path) -> None:
    run = planted(tmp_path, run={"partitions": 2}, train={"epochs": 1})
    answers = run_ranks(train_rank, 3, tmp_path, run, 0)
    assert all(isinstance(a, train.TrainingResult) for a in answers), answers
    calm = planted(tmp_path / "calm", run={"partitions": 2}, train={"epochs": 1})
    train.build(calm, calm.writer("train"), Quiet())
    for name, got in tables(run).items():
        torch.testing.assert_close(got, tables(calm)[name], rtol=1e-3, atol=1e-4)


def test_trains_in_memory(tmp_path: Path) -> None:
    run = planted(f"memory://{tmp_path.name}-train", train={"epochs": 1})
    train.build(run, run.writer("train"), Quiet())
    disk = planted(tmp_path, train={"epochs": 1})
    train.build(disk, disk.writer("train"), Quiet())
    assert run.manifest("train").content == disk.manifest("train").content  # type: ignore[union-attr]
