"""The loop: the same tables for any number of workers, kills and resumes."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from ranks import run_ranks
from safetensors.torch import load
from stored import arrays_of, planted, store
from worlds import PlantedWorld, config

from pipeline import train
from pipeline.errors import (
    ConfigError,
    CorruptArtifactError,
    MachineError,
    NotFiniteError,
    StaleArtifactError,
    TrainingError,
)
from pipeline.log import Quiet
from pipeline.run import Run
from pipeline.train import objectives
from pipeline.train.checkpoint import Cursor
from pipeline.train.loop import _closed as closed
from pipeline.train.trainer import prepared

SOFTMAX = {
    "epochs": 4, "dim": 6, "batch_size": 50, "negatives": 8, "in_batch": True,
    "negatives_power": 0.5, "bias": True, "weight_power": 1.0, "schedule": "linear",
    "warmup_steps": 3, "refit": True, "patience": 3,
}  # fmt: skip
RATING = {
    "epochs": 3, "dim": 4, "batch_size": 64, "objective": "rating", "optimizer": "adam",
    "learning_rate": 0.01, "l2": 0.2, "l2_power": 0.5, "l2_bias": 0.01, "schedule": "cosine",
}  # fmt: skip
IALS = {
    "epochs": 4, "dim": 6, "objective": "ials", "weight_power": 1.0, "refit": True, "patience": 3,
    "ials": {"block": 4, "cg_steps": 2},
}  # fmt: skip
ITEM2VEC = {
    "epochs": 3, "dim": 6, "batch_size": 200, "objective": "item2vec", "negatives": 8,
    "refit": True, "patience": 2, "item2vec": {"history": 3},
}  # fmt: skip
OBJECTIVES = {"softmax": SOFTMAX, "rating": RATING, "ials": IALS, "item2vec": ITEM2VEC}
# Every entry of the table is held to be the same for any number of workers.
EVERY: dict[str, dict[str, Any]] = {
    name: {"objective": name, "epochs": 2, "dim": 6, "batch_size": 50, "negatives": 8}
    for name in objectives.OBJECTIVES
} | OBJECTIVES


# Not written in the background, a checkpoint counts before the next step.
AT_ONCE = {"checkpoint_copy_mib": 0}


class KilledError(Exception):
    pass


class KillAt(Quiet):
    """Ends the process, or raises, at the n-th step it hears of."""

    def __init__(self, step: int, *, hard: bool = False) -> None:
        self.left = step
        self.hard = hard

    def update(self, done: int, total: int | None, unit: str, **facts: float) -> None:
        self.left -= 1
        if self.left == 0:
            if self.hard:
                os._exit(9)
            raise KilledError


class Notes(Quiet):
    def __init__(self) -> None:
        self.texts: list[str] = []

    def note(self, text: str) -> None:
        self.texts.append(text)


def tables(run: Run, files: list[Any] | None = None) -> dict[str, torch.Tensor]:
    """Both tables in order of row, biases as the last column."""
    whole = {}
    storage = run.storage.at("train")
    counts = run.manifest("vocab").counters  # type: ignore[union-attr]
    partitions = run.config.run.partitions
    for name in ("users", "items"):
        rows: list[torch.Tensor] = [torch.empty(0)] * counts[name]
        for p in range(partitions):
            part = load(storage.read(f"{name}/part-{p:05d}.safetensors"))
            columns = [part["weight"], *([part["bias"][:, None]] if "bias" in part else [])]
            for slot, row in enumerate(torch.cat(columns, 1)):
                rows[p + slot * partitions] = row
        whole[name] = torch.stack(rows)
    return whole


def train_rank(run: Run, kill_at: int, hard: bool = False) -> train.Outcome:
    """One rank's work; with `kill_at`, rank 0 stops at that step."""
    group = train.Group.joined()
    progress = KillAt(kill_at, hard=hard) if kill_at and group.rank == 0 else Quiet()
    return train.work(train.Task.of(run, run.writer("train")), group, progress)


def run_of(folder: Path, objective: str, **changes: Any) -> Run:
    asked = {"pairs": {"with_valid": True}} if objective.startswith("item2vec") else {}
    return planted(folder, train={**EVERY[objective], **changes}, shards=asked)


@pytest.mark.parametrize("objective", EVERY)
def test_one_two_and_three_workers_train_the_same_tables(objective: str, tmp_path: Path) -> None:
    one = run_of(tmp_path / "1", objective)
    train.build(one, one.writer("train"), Quiet())
    history = one.artifact("train").read_json("history.json")
    for world in (2, 3):
        run = run_of(tmp_path / str(world), objective)
        answers = run_ranks(train_rank, world, tmp_path, run, 0)
        for outcome in answers:
            assert isinstance(outcome, train.Outcome), outcome
        assert len({json.dumps([f.model_dump() for f in a.files]) for a in answers}) == 1
        assert answers[0].best_epoch == one.manifest("train").counters["best_epoch"]  # type: ignore[union-attr]
        for ours, theirs in zip(answers[0].history, history, strict=True):
            assert ours == pytest.approx(theirs, abs=1e-4)
        expected = tables(one)
        for name, got in tables(run).items():
            torch.testing.assert_close(got, expected[name], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("objective", "step"),
    [
        ("softmax", 1),
        ("softmax", 10),
        ("softmax", 40),
        ("rating", 9),
        ("rating", 14),
        ("ials", 1),
        ("ials", 4),
        ("ials", 9),
        ("item2vec", 6),
        ("item2vec", 16),
    ],
)
def test_stopped_and_gone_on_ends_in_the_same_bytes(
    objective: str, step: int, tmp_path: Path
) -> None:
    calm = run_of(tmp_path / "calm", objective)
    train.build(calm, calm.writer("train"), Quiet())
    every = 1 if objective == "ials" else 4
    run = run_of(tmp_path / "killed", objective, **AT_ONCE, checkpoint_steps=every)
    with pytest.raises(KilledError):
        train.build(run, run.writer("train"), KillAt(step))
    assert run.manifest("train") is None
    notes = Notes()
    train.build(run, run.writer("train"), notes)
    assert any("resumed" in text for text in notes.texts) == (step > every)
    assert run.manifest("train").content == calm.manifest("train").content  # type: ignore[union-attr]
    left = sorted(p.name for p in (tmp_path / "killed/tiny/train/checkpoints").rglob("*.*"))
    assert left == []


def test_killed_in_mid_epoch_and_gone_on_with_other_workers(tmp_path: Path) -> None:
    calm = run_of(tmp_path / "calm", "softmax")
    train.build(calm, calm.writer("train"), Quiet())
    expected = tables(calm)
    run = run_of(tmp_path / "killed", "softmax", **AT_ONCE, checkpoint_steps=4)
    answers = run_ranks(train_rank, 2, tmp_path, run, 14, True)
    assert answers[0] == 9
    assert isinstance(answers[1], RuntimeError)
    cursor = json.loads(run.storage.read("train/checkpoints/latest.json"))["slot"]
    assert cursor == "epoch-00001-0000004"
    shutil.copytree(tmp_path / "killed", tmp_path / "again")
    for world, root in ((3, tmp_path / "killed"), (1, tmp_path / "again")):
        again = Run(run.config.model_copy(
            update={"run": run.config.run.model_copy(update={"root": str(root)})}
        ))  # fmt: skip
        answers = run_ranks(train_rank, world, tmp_path, again, 0)
        assert isinstance(answers[0], train.Outcome), answers[0]
        for name, got in tables(again).items():
            torch.testing.assert_close(got, expected[name], rtol=1e-3, atol=1e-4)


def test_a_checkpoint_of_another_config_is_refused(tmp_path: Path) -> None:
    run = run_of(tmp_path, "softmax")
    with pytest.raises(KilledError):
        train.build(run, run.writer("train"), KillAt(20))
    other = Run(config(tmp_path, "log.tsv", train={**SOFTMAX, "learning_rate": 0.2}))
    with pytest.raises(StaleArtifactError, match=r"train\.learning_rate was 0\.01, is now 0\.2"):
        train.build(other, other.writer("train"), Quiet())
    train.discard_checkpoints(other)
    train.build(other, other.writer("train"), Quiet())
    assert other.up_to_date("train")


def test_a_damaged_checkpoint_is_noticed(tmp_path: Path) -> None:
    run = run_of(tmp_path, "softmax")
    with pytest.raises(KilledError):
        train.build(run, run.writer("train"), KillAt(20))
    slot = json.loads(run.storage.read("train/checkpoints/latest.json"))["slot"]
    path = run.storage.local_path(f"train/checkpoints/{slot}/part-00002.safetensors")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(CorruptArtifactError, match=r"part-00002\.safetensors.*--rebuild"):
        train.build(run, run.writer("train"), Quiet())
    path.unlink()
    with pytest.raises(CorruptArtifactError, match=r"part-00002\.safetensors"):
        train.build(run, run.writer("train"), Quiet())
    run.storage.write("train/checkpoints/latest.json", b"{")
    with pytest.raises(CorruptArtifactError, match=r"latest\.json.*--rebuild"):
        train.build(run, run.writer("train"), Quiet())
    train.discard_checkpoints(run)
    train.build(run, run.writer("train"), Quiet())
    assert run.up_to_date("train")


@pytest.mark.parametrize("objective", ["softmax", "rating", "item2vec"])
def test_a_loss_that_is_not_finite_publishes_nothing(objective: str, tmp_path: Path) -> None:
    changes: dict[str, Any] = {"similarity": "dot", "learning_rate": 1e30, "bias": False}
    run = run_of(tmp_path, objective, **changes)
    with pytest.raises(NotFiniteError, match=r"epoch 1, step \d+ of \d+.*Lower train\.learning_"):
        train.build(run, run.writer("train"), Quiet())
    assert run.manifest("train") is None


def test_a_sweep_that_is_not_finite_publishes_nothing(tmp_path: Path) -> None:
    run = run_of(tmp_path, "ials", init_scale=1e30)
    said = r"epoch 1, step 1 of 2.*Raise train\.ials\.regularization"
    with pytest.raises(NotFiniteError, match=said):
        train.build(run, run.writer("train"), Quiet())
    assert run.manifest("train") is None


def test_a_sweep_killed_between_its_halves_goes_on_with_other_workers(tmp_path: Path) -> None:
    calm = run_of(tmp_path / "calm", "ials")
    train.build(calm, calm.writer("train"), Quiet())
    run = run_of(tmp_path / "killed", "ials", **AT_ONCE, checkpoint_steps=1)
    assert run_ranks(train_rank, 2, tmp_path, run, 4, True)[0] == 9
    cursor = json.loads(run.storage.read("train/checkpoints/latest.json"))["slot"]
    assert cursor == "epoch-00001-0000001"
    answers = run_ranks(train_rank, 3, tmp_path, run, 0)
    assert isinstance(answers[0], train.Outcome), answers[0]
    expected = tables(calm)
    for name, got in tables(run).items():
        torch.testing.assert_close(got, expected[name], rtol=1e-3, atol=1e-4)


def test_all_ranks_stop_at_a_loss_that_is_not_finite(tmp_path: Path) -> None:
    run = run_of(tmp_path, "rating", learning_rate=1e30)
    answers = run_ranks(train_rank, 2, tmp_path, run, 0)
    assert [type(a) for a in answers] == [NotFiniteError, NotFiniteError]


def overflowed(run: Run) -> None:
    """A row of rank 1 leaves the range of a float in the last update of an epoch."""
    group = train.Group.joined()
    trainer = prepared(train.Task.of(run, run.writer("train")), group, Cursor())
    if group.rank == 1:
        trainer.users.weight[0] = torch.inf
    closed(trainer)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_all_ranks_stop_at_a_row_that_is_not_finite(objective: str, tmp_path: Path) -> None:
    answers = run_ranks(overflowed, 2, tmp_path, run_of(tmp_path, objective))
    assert [type(a) for a in answers] == [NotFiniteError, NotFiniteError], answers
    assert "in epoch 1, after its last step" in str(answers[0])


def full_disk(run: Run) -> train.Outcome:
    """Rank 1 cannot write."""
    group = train.Group.joined()
    if group.rank == 1:

        def refuse(*_: Any) -> Any:
            raise MachineError("the disk is full")

        from pipeline.storage import Storage

        Storage.write = refuse  # type: ignore[method-assign]
    return train.work(train.Task.of(run, run.writer("train")), group, Quiet())


def test_a_disk_that_is_full_at_one_rank_stops_all(tmp_path: Path) -> None:
    answers = run_ranks(full_disk, 3, tmp_path, run_of(tmp_path, "rating"))
    assert [type(a) for a in answers] == [train.StoppedError, MachineError, train.StoppedError]


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
    ],
    ids=lambda changes: changes["objective"],
)
def test_learns_the_planted_clusters(changes: dict[str, Any], tmp_path: Path) -> None:
    world = PlantedWorld(users=120, items=40, clusters=4, events_per_user=9)
    run = planted(tmp_path, world, train={"epochs": 25, "dim": 16, "batch_size": 64, **changes})
    train.build(run, run.writer("train"), Quiet())
    items = torch.nn.functional.normalize(tables(run)["items"])
    near = (items @ items.T - 2 * torch.eye(40)).topk(5).indices % world.clusters
    assert float((near == torch.arange(40)[:, None] % world.clusters).float().mean()) > 0.9


def test_ratings_beat_their_mean(tmp_path: Path) -> None:
    world = PlantedWorld(users=120, items=40, stray=0.3)
    settings = {"objective": "rating", "dim": 4, "epochs": 40, "l2": 0.1, "init_scale": 0.1}
    run = planted(tmp_path, world, train=settings)
    train.build(run, run.writer("train"), Quiet())
    history = run.artifact("train").read_json("history.json")
    model = run.artifact("train").read_json("model.json")
    weights = [w for *_, w in world.events()]
    spread = torch.tensor(weights).std().item()
    assert min(e["rmse"] for e in history) < 0.85 * spread
    assert (model["metric"], model["similarity"], model["bias"]) == ("rmse", "dot", True)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"objective": "hinge"}, r"train\.objective: unknown objective 'hinge'; allowed: softmax"),
        ({"optimizer": "sgd"}, r"train\.optimizer: .*allowed: adagrad, adam"),
        ({"schedule": "step"}, r"train\.schedule: .*allowed: constant, linear, cosine"),
        ({"metric": "rmse"}, r"train\.metric: 'rmse' is not measured.*allowed: ndcg@10"),
        ({"negatives": 0}, r"train\.negatives: .*needs negatives"),
        ({"l2_bias": 0.1}, r"train\.l2_bias: .*no biases.*train\.bias = true"),
    ],
)
def test_names_are_checked_before_anything_runs(
    changes: dict[str, Any], said: str, tmp_path: Path
) -> None:
    run = planted(tmp_path, train=changes)
    with pytest.raises(ConfigError, match=said):
        train.build(run, run.writer("train"), Quiet())


NONE = arrays_of([])
SOME = arrays_of([(0, 0, 1.0), (1, 1, 2.0), (2, 2, 0.0), (0, 2, 3.0)])


def small(root: Path, splits: dict[str, Any], **changes: Any) -> Run:
    run = Run(config(root, "log.tsv", train={"dim": 64, "epochs": 2, **changes}))
    return store(run, 3, 3, {"train": SOME, "valid": NONE, "test": NONE, **splits})


def test_no_train_events(tmp_path: Path) -> None:
    run = small(tmp_path, {"train": NONE, "valid": SOME})
    with pytest.raises(TrainingError, match=r"no train events.*shards\.valid"):
        train.build(run, run.writer("train"), Quiet())


def test_without_validation_the_last_epoch_is_kept(tmp_path: Path) -> None:
    run, notes = small(tmp_path, {}), Notes()
    train.build(run, run.writer("train"), notes)
    model = run.artifact("train").read_json("model.json")
    assert (model["best_epoch"], model["metric"]) == (2, "")
    assert notes.texts[0] == "no validation events: the last epoch is kept"
    for key, value in (("metric", "ndcg@10"), ("refit", True)):
        asked = Run(config(tmp_path, "log.tsv", train={"dim": 64, "epochs": 2, key: value}))
        with pytest.raises(ConfigError, match=rf"train\.{key}: .*Raise shards\.valid"):
            train.build(asked, asked.writer("train"), Quiet())


def test_validation_that_only_repeats_train_events(tmp_path: Path) -> None:
    run = small(tmp_path, {"valid": SOME})
    train.build(run, run.writer("train"), Quiet())
    assert run.artifact("train").read_json("model.json")["metric"] == ""


def test_one_user_one_item_and_more_dimensions_than_rows(tmp_path: Path) -> None:
    run = Run(config(tmp_path, "log.tsv", train={"dim": 64, "epochs": 2}))
    one = arrays_of([(0, 0, 1.0)])
    store(run, 1, 1, {"train": one, "valid": NONE, "test": NONE})
    train.build(run, run.writer("train"), Quiet())
    assert tables(run)["items"].shape == (1, 64)


def test_more_workers_than_partitions(tmp_path: Path) -> None:
    run = planted(tmp_path, run={"partitions": 2}, train={"epochs": 1})
    answers = run_ranks(train_rank, 3, tmp_path, run, 0)
    assert all(isinstance(a, train.Outcome) for a in answers), answers
    calm = planted(tmp_path / "calm", run={"partitions": 2}, train={"epochs": 1})
    train.build(calm, calm.writer("train"), Quiet())
    for name, got in tables(run).items():
        torch.testing.assert_close(got, tables(calm)[name], rtol=1e-3, atol=1e-4)


def test_events_of_weight_zero_teach_nothing(tmp_path: Path) -> None:
    run = small(tmp_path / "a", {})
    train.build(run, run.writer("train"), Quiet())
    users = tables(run)["users"]
    fresh = small(tmp_path / "b", {"train": arrays_of([(2, 2, 0.0)])})
    train.build(fresh, fresh.writer("train"), Quiet())
    # User 2 has a single event, of weight 0: it stays where it began.
    assert torch.equal(users[2], tables(fresh)["users"][2])
    assert not torch.equal(users[0], tables(fresh)["users"][0])


def test_trains_in_memory(tmp_path: Path) -> None:
    run = planted(f"memory://{tmp_path.name}-train", train={"epochs": 1})
    train.build(run, run.writer("train"), Quiet())
    disk = planted(tmp_path, train={"epochs": 1})
    train.build(disk, disk.writer("train"), Quiet())
    assert run.manifest("train").content == disk.manifest("train").content  # type: ignore[union-attr]
