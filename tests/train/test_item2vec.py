"""Item2vec: planted clusters, users made of their items, and what it needs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load

from embedmill.pipeline import train
from embedmill.pipeline.errors import ConfigError, TrainingError
from embedmill.pipeline.log import Quiet
from embedmill.pipeline.store.run import Run
from embedmill.pipeline.train.collectives import Group
from embedmill.pipeline.train.data.histories import Histories, read_latest_events
from embedmill.pipeline.train.plan import Layout
from embedmill.pipeline.train.tables.embedding import ShardedEmbedding
from embedmill.pipeline.views.shards import Shards
from tests.support.artifacts import arrays_of
from tests.support.runs import planted, store
from tests.support.worlds import PlantedWorld, config

PAIRS = {"pairs": {"with_valid": True}}
NONE = arrays_of([])


def whole(run: Run, name: str, rows: int) -> torch.Tensor:
    """A table in order of row."""
    partitions = run.config.run.partitions
    table: dict[int, torch.Tensor] = {}
    for p in range(partitions):
        part = load(run.storage.at("train").read(f"{name}/part-{p:05d}.safetensors"))["weight"]
        table |= {p + slot * partitions: row for slot, row in enumerate(part)}
    return torch.stack([table[row] for row in range(rows)])


@pytest.mark.parametrize("objective", ["item2vec", "item2vec-softmax"])
def test_learns_the_planted_clusters(objective: str, tmp_path: Path) -> None:
    world = PlantedWorld(users=120, items=40, clusters=4, events_per_user=9)
    settings = {"objective": objective, "epochs": 20, "dim": 16, "batch_size": 128, "patience": 0}
    run = planted(tmp_path, world, train={**settings, "negatives": 32}, shards=PAIRS)
    train.build(run, run.writer("train"), Quiet())
    items = torch.nn.functional.normalize(whole(run, "items", 40))
    near = (items @ items.T - 2 * torch.eye(40)).topk(5).indices % world.clusters
    assert float((near == torch.arange(40)[:, None] % world.clusters).float().mean()) > 0.9
    users = whole(run, "users", 120)
    best = (users @ items.T).topk(5).indices % world.clusters
    assert float((best == torch.arange(120)[:, None] % world.clusters).float().mean()) > 0.9
    model = run.artifact("train").read_json("model.json")
    assert (model["similarity"], model["users"], model["items"]) == ("cosine", 120, 40)
    assert whole(run, "contexts", 40).shape == (40, 16)


@pytest.mark.parametrize("refit", [False, True])
def test_a_user_is_the_mean_of_its_last_items(refit: bool, tmp_path: Path) -> None:
    settings = {"objective": "item2vec", "epochs": 2, "dim": 4, "refit": refit, "patience": 0}
    run = planted(tmp_path, train={**settings, "item2vec": {"history": 2}}, shards=PAIRS)
    train.build(run, run.writer("train"), Quiet())
    items = torch.nn.functional.normalize(whole(run, "items", 40))
    shards = run.artifact("shards")
    had: dict[int, list[tuple[int, int, int]]] = {}
    for split in ("train", "valid")[: 2 if refit else 1]:
        for row in shards.read_tables(split).to_pylist():
            event = (row["time"], row["hash"], row["item_row"])
            had.setdefault(row["user_row"], []).append(event)
    users = whole(run, "users", 60)
    for user in range(60):
        last = [item for *_, item in sorted(had.get(user, []))[-2:]]
        expected = items[last].mean(0) if last else torch.zeros(4)
        torch.testing.assert_close(users[user], expected)


def test_user_vectors_by_hand(tmp_path: Path) -> None:
    """Users 0 and 2 in partition 0, user 1 in partition 1; user 2 has nothing."""
    run = Run(config(tmp_path, "log.tsv", run={"partitions": 2}))
    events = arrays_of([(0, 0, 1.0), (0, 1, 1.0), (1, 1, 1.0), (0, 1, 1.0)])
    shards = store(run, 3, 2, {"train": events, "valid": NONE, "test": NONE}).artifact("shards")
    layout, group = Layout(2), Group()
    items = ShardedEmbedding(torch.tensor([[3.0, 4.0], [0.0, 2.0]]), 2, layout, group)
    latest = read_latest_events(Shards(shards), ["train"], layout, (3, 2), 9)
    found = Histories(latest, 3, layout).user_vectors(torch.arange(3), items)
    expected = [[0.2, (0.8 + 2) / 3], [0.0, 1.0], [0.0, 0.0]]
    assert np.allclose(found.numpy(), expected)
    latest = read_latest_events(Shards(shards), ["train"], layout, (3, 2), 1)
    assert Histories(latest, 3, layout).partition_vectors(0, items).tolist() == [
        [0.0, 1.0],
        [0.0, 0.0],
    ]


def test_sessions_without_pairs(tmp_path: Path) -> None:
    run = Run(config(tmp_path, "log.tsv", train={"objective": "item2vec"}, shards=PAIRS))
    alone = arrays_of([(0, 0, 1.0), (1, 1, 1.0)])
    store(run, 2, 2, {"train": alone, "valid": NONE, "test": NONE})
    with pytest.raises(TrainingError, match=r"no pairs\. Raise shards\.pairs\.session_gap_min"):
        train.build(run, run.writer("train"), Quiet())


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        (
            {"events": {"time": ""}, "shards": {"split": "random", "valid": 0.1, "test": 0.1}},
            r"events\.time: needed for train\.objective = 'item2vec'",
        ),
        ({}, r"shards\.pairs: needed for train\.objective = 'item2vec'"),
        (
            {"shards": {"pairs": {}}, "train": {"objective": "item2vec", "refit": True}},
            r"shards\.pairs\.with_valid: true is needed for a refit",
        ),
        (
            {"shards": PAIRS, "train": {"objective": "item2vec", "in_batch": True}},
            r"train\.in_batch: not read by objective 'item2vec', only by softmax, bpr, ccl",
        ),
    ],
)
def test_what_it_needs_is_said_at_once(
    sections: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        config(tmp_path, "log.tsv", **{"train": {"objective": "item2vec"}, **sections})


def test_defaults_are_the_papers_unless_the_config_says_otherwise(tmp_path: Path) -> None:
    settings = {"objective": "item2vec", "temperature": 0.5}
    resolved = config(tmp_path, "log.tsv", train=settings, shards=PAIRS).train
    found = (resolved.similarity, resolved.temperature, resolved.negatives_power)
    assert found == ("dot", 0.5, 0.75)
    assert resolved.weight_power == 1.0
