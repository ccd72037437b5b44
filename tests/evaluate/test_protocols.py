"""Metrics by hand: precision, spread over items, sampled negatives, users who are folded in."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from embedmill.pipeline.config import Config, parse
from embedmill.pipeline.errors import ConfigError
from embedmill.pipeline.evaluate import metric_names
from embedmill.pipeline.evaluate.exposure import Exposure, gini
from embedmill.pipeline.evaluate.holdout import Events, Group
from embedmill.pipeline.evaluate.sampled import rank_sums, sample_negatives
from embedmill.pipeline.query.metrics import metrics_of
from embedmill.pipeline.ranking_metrics import user_precision
from embedmill.pipeline.score import RowLists
from embedmill.pipeline.views.vectors import Vectors
from tests.evaluate.test_evaluate import evaluated, random_world
from tests.support.runs import clusters

BASE: dict[str, Any] = {"run": {"name": "a"}, "events": {"paths": "a.tsv"}}


def test_map_and_r_precision_by_hand() -> None:
    # Found at ranks 1, 3 and 4 of four items; nothing of one; at rank 2 of one.
    hit = torch.tensor([[1, 0, 1, 1], [0, 0, 0, 0], [0, 1, 0, 0]], dtype=torch.bool)
    values = user_precision(hit, torch.tensor([4, 1, 1]), [1, 2, 4, 10])
    assert values["map@4"].tolist() == pytest.approx([(1 + 2 / 3 + 3 / 4) / 4, 0, 1 / 2])
    sums = {name: float(value_B.sum()) for name, value_B in values.items()}
    assert sums["map@1"] == pytest.approx(1 / 1)
    assert sums["map@2"] == pytest.approx(1 / 2 + 1 / 2)
    assert sums["map@4"] == pytest.approx((1 + 2 / 3 + 3 / 4) / 4 + 1 / 2)
    assert sums["map@10"] == sums["map@4"]
    # The first one, two and four results of the first user; the first of the others.
    assert sums["r_precision@1"] == pytest.approx(1)
    assert sums["r_precision@2"] == pytest.approx(1 / 2)
    assert sums["r_precision@4"] == sums["r_precision@10"] == pytest.approx(3 / 4)
    nobody = user_precision(torch.zeros(2, 0, dtype=torch.bool), torch.tensor([1, 0]), [3])
    assert {name: v.tolist() for name, v in nobody.items()} == {
        "map@3": [0, 0],
        "r_precision@3": [0, 0],
    }


def test_gini_by_hand() -> None:
    assert gini(np.array([3, 3, 3])) == 0
    assert gini(np.array([0, 0, 0, 8])) == pytest.approx(3 / 4)
    # Differences of 1, 2 and 3, each twice, over 9 pairs, by twice the mean 2.
    counts = [1, 4, 1 + 1]
    mean_difference = sum(abs(a - b) for a in counts for b in counts) / 9
    assert gini(np.array(counts)) == pytest.approx(mean_difference / (2 * 7 / 3))
    assert gini(np.array([0, 0])) == 0


def test_spread_over_items_by_hand() -> None:
    # Five items, the last is not live; of 16 train events item 0 has 8, 1 has 4, 2 has none.
    exposure = Exposure([1, 3], np.array([8, 4, 0, 4, 9]), np.array([True] * 4 + [False]))
    exposure.add(torch.tensor([[0, 1, 2], [0, 1, -1]]), [1, 3])
    found = exposure.means()
    assert found["coverage@1"] == 1 / 4
    assert found["calibrated_coverage@1"] == 1 / 2  # two answers could have named two items
    assert found["gini@1"] == pytest.approx(3 / 4)
    assert found["coverage@3"] == found["calibrated_coverage@3"] == 3 / 4
    bits = [math.log2(16 / n) for n in (8, 4, 1)]
    assert found["novelty@1"] == pytest.approx(bits[0])
    assert found["novelty@3"] == pytest.approx((2 * bits[0] + 2 * bits[1] + bits[2]) / 5)


def test_ranks_by_hand() -> None:
    sums = rank_sums(np.array([1, 3, 11]), [2, 10])
    assert sums["hit_rate@2"] == 1
    assert sums["hit_rate@10"] == 2
    assert sums["ndcg@10"] == pytest.approx(1 + 1 / 2)
    assert sums["mrr@10"] == pytest.approx(1 + 1 / 3)


def group_of(seen: list[list[int]], relevant: list[list[int]]) -> Group:
    def lists(rows: list[list[int]]) -> RowLists:
        users = [u for u, own in enumerate(rows) for _ in own]
        items = [i for own in rows for i in own]
        return RowLists.of(torch.tensor(users), torch.tensor(items), len(rows))

    none = Events(*(np.empty(0, np.int64),) * 2, np.empty(0))
    users = np.arange(len(seen)) * 7
    return Group(users, lists(seen), lists(relevant), none, none, 0, 0, 0)


def test_negatives_are_what_the_user_has_no_event_with() -> None:
    group = group_of([[0, 1, 9], [5]], [[2], [3, 4]])
    live = np.array([0, 1, 2, 3, 4, 5, 6, 7])  # 8 and 9 are not
    user, item = np.array([0, 1, 1]), np.array([2, 3, 4])
    rows, drawn = sample_negatives(group, user, item, live, (2000, 1))
    assert drawn.all()
    assert [sorted(set(row)) for row in rows.tolist()] == [
        [3, 4, 5, 6, 7], [0, 1, 2, 6, 7], [0, 1, 2, 6, 7]
    ]  # fmt: skip
    counts = np.bincount(rows[0], minlength=8)[3:]
    assert counts.min() > 300  # uniform: 400 of each expected
    assert not np.array_equal(rows[1], rows[2])
    alone, _ = sample_negatives(group, user[2:], item[2:], live, (2000, 1))
    assert np.array_equal(alone[0], rows[2])  # the draw does not depend on the other pairs
    other, _ = sample_negatives(group, user, item, live, (2000, 2))
    assert not np.array_equal(other, rows)


def test_a_user_who_has_everything_has_no_negatives() -> None:
    group = group_of([[0, 1]], [[2]])
    _, drawn = sample_negatives(group, np.array([0]), np.array([2]), np.arange(3), (5, 1))
    assert not drawn.any()


def test_leave_one_out_among_sampled_negatives(tmp_path: Path) -> None:
    """Every negative but those of the user's own cluster scores lower: the test item is first."""
    world = clusters(users=40, items=30)
    sections: dict[str, Any] = {"evaluate": {"ks": [1, 10], "sampled_negatives": 99}}
    run, art = evaluated(world, tmp_path, **sections)
    metrics = art.read_json("metrics.json")
    assert metrics["sampled.pairs"] == art.counters["test_pairs"]
    assert metrics["sampled.hit_rate@10"] >= metrics["recall@10"]
    assert metrics["sampled.popularity.hit_rate@10"] < metrics["sampled.hit_rate@10"]
    assert set(metrics) <= {*metric_names(run.config), "sampled.pairs", "users", "cold_users"}
    protocols = {one["prefix"]: one for one in art.read_json("protocols.json")}
    assert protocols["sampled."]["name"] == "99 sampled negatives"
    again = evaluated(world, tmp_path / "b", **sections)[1].read_json("metrics.json")
    assert again == metrics


def test_users_who_are_withheld_are_folded_in(tmp_path: Path) -> None:
    """Test events of users without train events: a share is given, the others are found."""
    world = clusters(users=40, items=30)
    splits = {name: list(pairs) for name, pairs in world.splits.items()}
    withheld = set(range(0, 40, 4))
    every = [p for pairs in splits.values() for p in pairs]
    splits = {
        "train": [p for p in every if p[0] not in withheld],
        "valid": [],
        "test": [p for p in every if p[0] in withheld],
    }
    world = dataclasses.replace(world, splits=splits)
    sections: dict[str, Any] = {"evaluate": {"ks": [5], "fold_in": 0.5}}
    run, art = evaluated(world, tmp_path, **sections)
    metrics = art.read_json("metrics.json")
    assert art.counters["cold_users"] == 10
    assert "recall@5" not in metrics
    assert 0 < metrics["fold_in.users"] <= 10
    assert metrics["fold_in.recall@5"] > metrics["fold_in.popularity.recall@5"]
    assert set(metrics) <= {
        *metric_names(run.config), "fold_in.users", "users", "cold_users"
    }  # fmt: skip
    _, without = evaluated(world, tmp_path / "b", evaluate={"ks": [5]})
    assert not any(name.startswith("fold_in") for name in without.read_json("metrics.json"))


def test_metrics_say_how_they_were_measured(tmp_path: Path) -> None:
    run, art = evaluated(random_world(), tmp_path, evaluate={"ks": [5], "fold_in": 0.5})
    prefixes = [one["prefix"] for one in art.read_json("protocols.json")]
    assert prefixes == ["", "fold_in."]
    assert all(one["not_comparable"] for one in art.read_json("protocols.json"))
    assert Vectors.of(run.artifact("export"), "users").count == 23
    if run.manifest("train") is not None and run.artifact("train").has("history.json"):
        assert "whole catalogue" in str(metrics_of(run)["protocol"])


def config_of(**sections: Any) -> Config:
    return parse({**BASE, **sections})


def test_a_split_of_users_folds_in_by_default() -> None:
    config = config_of(shards={"split": "users"})
    assert (config.shards.valid, config.shards.test, config.evaluate.fold_in) == (0.1, 0.1, 0.8)
    assert config_of(shards={"split": "users"}, evaluate={"fold_in": 0.5}).evaluate.fold_in == 0.5
    assert config_of(shards={"split": "random"}).evaluate.fold_in == 0
    with pytest.raises(ConfigError, match=r"evaluate\.fold_in: needed for shards\.split = 'users'"):
        config_of(shards={"split": "users"}, evaluate={"fold_in": 0})
