"""Samples of users, their intervals, and metrics of single users that two runs are compared by."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from embedmill.pipeline.errors import InputError
from embedmill.pipeline.evaluate.holdout import UserSample
from embedmill.pipeline.mean_intervals import mean_interval, paired_difference
from embedmill.pipeline.query.comparison import compare_runs
from embedmill.pipeline.store.artifact import Artifact
from embedmill.pipeline.views.evaluate import Evaluation
from tests.evaluate.test_evaluate import KS, evaluated, random_world


def kept(root: Path, seed: int = 5, **evaluate: object) -> Artifact:
    world = random_world(users=60, items=37, seed=seed)
    sections = {"ks": KS, "keep_users": True, **evaluate}
    return evaluated(world, root, evaluate=sections)[1]


def test_an_interval_by_hand() -> None:
    # 1, 2, 3, 4: mean 2.5, variance 5/3.
    low, high = mean_interval(10.0, 30.0, 4)
    assert (low + high) / 2 == pytest.approx(2.5)
    assert high - 2.5 == pytest.approx(1.959964 * math.sqrt(5 / 3 / 4), rel=1e-6)
    assert mean_interval(3.0, 3.0, 3) == (1.0, 1.0)


def test_intervals_hold_the_mean_of_all_in_95_of_100_draws() -> None:
    source, inside = np.random.default_rng(3), 0
    value_U = (source.random(20_000) ** 4).round(2)
    rows = np.arange(len(value_U))
    for seed in range(200):
        drawn_B = value_U[UserSample(0.05, seed).of(rows)]
        low, high = mean_interval(drawn_B.sum(), np.square(drawn_B).sum(), len(drawn_B))
        inside += low <= value_U.mean() <= high
    assert 180 <= inside <= 199  # of 200 binomial draws with .95 all but one in a thousand


def test_metrics_of_users_are_those_of_the_run(tmp_path: Path) -> None:
    artifact = kept(tmp_path)
    evaluation = Evaluation(artifact)
    users = evaluation.users()
    assert users.num_rows == artifact.counters["users"]
    assert len(set(users["user"].to_pylist())) == users.num_rows
    for name, (low, high) in evaluation.intervals.items():
        if "." in name:
            continue
        values = users[name].to_numpy()
        assert evaluation.metrics[name] == pytest.approx(values.mean(), abs=1e-12)
        half = 1.959964 * values.std(ddof=1) / math.sqrt(len(values))
        assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=1e-6)


def test_a_sample_is_some_of_the_users_and_the_others_are_counted(tmp_path: Path) -> None:
    every, some = kept(tmp_path / "all", users=0), kept(tmp_path / "some", users=30)
    counters = some.counters
    asked = counters["users"] + counters["nothing_left"] + counters["cold_users"]
    assert counters["unsampled_users"] > 0
    total = every.counters
    assert asked + counters["unsampled_users"] == sum(
        total[name] for name in ("users", "nothing_left", "cold_users")
    )
    assert counters["events"] == total["events"]
    assert total["unsampled_users"] == total["unsampled_events"] == 0
    whole, drawn = (Evaluation(one).users().to_pylist() for one in (every, some))
    of_user = {row["user"]: row for row in whole}
    assert drawn == [of_user[row["user"]] for row in drawn]


def test_two_runs_in_pairs(tmp_path: Path) -> None:
    runs = [
        evaluated(random_world(), tmp_path / name, evaluate=sections)[0]
        for name, sections in (
            ("a", {"ks": KS, "keep_users": True}),
            ("b", {"ks": [5, 20], "keep_users": True, "users": 12}),
            ("none", {"ks": KS}),
        )
    ]
    same = compare_runs(runs[0], runs[1])
    assert list(same.differences) == [f"{n}@5" for n in ("recall", "ndcg", "mrr", "hit_rate")] + [
        "map@5",
        "r_precision@5",
    ]
    one = same.differences["ndcg@5"]
    assert (one.before, one.low, one.p_value, one.better) == (one.after, 0.0, 1.0, 0)
    assert same.only_before == runs[0].artifact("evaluate").counters["users"] - one.users > 0
    assert same.only_after == 0
    with pytest.raises(InputError, match=r"no metrics of single users.*keep_users=true"):
        compare_runs(runs[0], runs[2])


def test_a_paired_difference_by_hand() -> None:
    # Changes 1, 0, 2, 1, 1: mean 1, variance 1/2; t = 1 / sqrt(.5 / 5) = 3.1623.
    before_U = np.array([0.0, 1.0, 0.0, 2.0, 3.0])
    found = paired_difference(before_U, before_U + np.array([1.0, 0.0, 2.0, 1.0, 1.0]))
    assert (found.users, found.before, found.after) == (5, pytest.approx(1.2), pytest.approx(2.2))
    assert (found.better, found.worse) == (4, 0)
    half = 1.959964 * math.sqrt(0.5 / 5)
    assert (found.low, found.high) == (pytest.approx(1 - half), pytest.approx(1 + half))
    assert found.p_value == pytest.approx(math.erfc(math.sqrt(10) / math.sqrt(2)))
