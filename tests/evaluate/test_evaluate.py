"""Evaluate on planted runs, against plain loops over the same rules."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedmill.jobs import evaluate as evaluate_job
from embedmill.jobs import export as export_job
from embedmill.jobs import index as index_job
from embedmill.pipeline.errors import ConfigError
from embedmill.pipeline.evaluate import board, holdout
from embedmill.pipeline.log import Quiet
from embedmill.pipeline.store.artifact import Artifact
from embedmill.pipeline.store.run import Run
from embedmill.pipeline.views.vectors import Vectors
from tests.support.runs import StoredRun, clusters
from tests.support.worlds import Pairs

KS = [1, 5, 10, 100]


def evaluated(world: StoredRun, root: Path | str, **sections: Any) -> tuple[Run, Artifact]:
    sections = {"evaluate": {"ks": KS}, "index": {"kind": "flat", "queries": 20}} | sections
    run = world.store(root, **sections)
    for name, job in (("export", export_job), ("index", index_job), ("evaluate", evaluate_job)):
        job.build(run, run.writer(name), Quiet())
    return run, run.artifact("evaluate")


def random_world(users: int = 23, items: int = 37, seed: int = 5) -> StoredRun:
    """Any events: repeats in the log, cold users, users with nothing left, items never seen."""
    draw = np.random.default_rng(seed)
    splits: dict[str, Pairs] = {}
    for split, size in (("train", 160), ("valid", 30), ("test", 90)):
        user = draw.integers(0, users if split != "train" else users - 3, size)
        item = (draw.random(size) ** 2 * (items if split == "test" else items - 4)).astype(int)
        weight = draw.integers(1, 6, size).astype(float)
        splits[split] = list(zip(user.tolist(), item.tolist(), weight.tolist(), strict=True))
    world = clusters(users=users, items=items)
    return dataclasses.replace(
        world,
        splits=splits,
        user_ND=draw.standard_normal((users, 8)).astype(np.float32),
        item_ND=draw.standard_normal((items, 8)).astype(np.float32),
    )


def by_user(pairs: Pairs) -> dict[int, set[int]]:
    found: dict[int, set[int]] = {}
    for user, item, _ in pairs:
        found.setdefault(user, set()).add(item)
    return found


class Oracle:
    """The rules once more, as plain loops."""

    def __init__(self, world: StoredRun, score_UN: np.ndarray[Any, Any]) -> None:
        train, valid, test = (by_user(world.splits[s]) for s in ("train", "valid", "test"))
        self.items = len(world.items)
        self.counts = np.bincount([p[1] for p in world.splits["train"]], minlength=self.items)
        self.cold = [u for u in test if u not in train]
        self.seen = {u: train.get(u, set()) | valid.get(u, set()) for u in test}
        self.wanted = {
            u: wanted
            for u in sorted(test)
            if u in train and (wanted := test[u] - self.seen[u])
        }  # fmt: skip
        self.repeats = sum(len(test[u] & self.seen[u]) for u in test if u in train)
        self.ranked = {
            "": {u: self.rank(u, score_UN[u]) for u in self.wanted},
            "popularity.": {u: self.rank(u, self.counts) for u in self.wanted},
        }

    def rank(self, user: int, score_N: np.ndarray[Any, Any]) -> list[int]:
        order = sorted(range(self.items), key=lambda i: (-score_N[i], i))
        return [i for i in order if i not in self.seen[user]]

    def metric(self, prefix: str, name: str, k: int) -> float:
        found = []
        answered: set[int] = set()
        for user, ranked in self.ranked[prefix].items():
            wanted, top = self.wanted[user], ranked[:k]
            answered |= set(top)
            hit = [r for r, i in enumerate(top) if i in wanted]
            found.append(
                {
                    "recall": len(hit) / len(wanted),
                    "ndcg": sum(1 / math.log2(r + 2) for r in hit)
                    / sum(1 / math.log2(r + 2) for r in range(min(k, len(wanted)))),
                    "mrr": 1 / (hit[0] + 1) if hit else 0.0,
                    "hit_rate": float(bool(hit)),
                    "map": sum((n + 1) / (r + 1) for n, r in enumerate(hit)) / min(k, len(wanted)),
                    "r_precision": sum(r < min(k, len(wanted)) for r in hit) / min(k, len(wanted)),
                    "coverage": 0.0,
                }[name]
            )
        return len(answered) / self.items if name == "coverage" else sum(found) / len(found)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_every_metric_equals_plain_loops(tmp_path: Path, seed: int) -> None:
    world = random_world(seed=seed)
    run, art = evaluated(world, tmp_path)
    export = run.artifact("export")
    user_UD, item_ND = (Vectors.of(export, side).load() for side in ("users", "items"))
    oracle = Oracle(world, user_UD @ item_ND.T)
    metrics = art.read_json("metrics.json")
    for k in KS:
        for name in ("recall", "ndcg", "mrr", "hit_rate", "map", "r_precision", "coverage"):
            for prefix in ("", "popularity."):
                want = oracle.metric(prefix, name, k)
                assert metrics[f"{prefix}{name}@{k}"] == pytest.approx(want, abs=1e-12)
            # A flat index under the same masks is exact search.
            through = metrics[f"through_index.{name}@{k}"]
            assert through == pytest.approx(metrics[f"{name}@{k}"], abs=1e-12)
    assert metrics["users"] == art.counters["users"] == len(oracle.wanted)
    assert metrics["cold_users"] == len(oracle.cold) > 0
    assert art.counters["repeats"] == oracle.repeats > 0
    assert art.counters["test_pairs"] == sum(map(len, oracle.wanted.values()))


def test_slices_add_up_and_hold_equal_train_events(tmp_path: Path) -> None:
    world = random_world()
    run, art = evaluated(world, tmp_path)
    export = run.artifact("export")
    scores = Vectors.of(export, "users").load() @ Vectors.of(export, "items").load().T
    oracle = Oracle(world, scores)
    slices = art.read_json("slices.json")
    assert [s["slice"] for s in slices] == ["head", "middle", "tail", "never trained on"]
    assert sum(s["items"] for s in slices) == 37
    assert sum(s["train_events"] for s in slices) == 160
    assert slices[-1]["train_events"] == 0
    assert sum(s["test_pairs"] for s in slices) == art.counters["test_pairs"]
    most = oracle.counts.max()
    assert all(abs(s["train_events"] - 160 / 3) <= most for s in slices[:3])
    for prefix, ranked in oracle.ranked.items():
        hits = sum(len(set(ranked[u][:10]) & w) for u, w in oracle.wanted.items())
        told = sum((s[f"{prefix}recall@10"] or 0) * s["test_pairs"] for s in slices)
        assert told == pytest.approx(hits)


def test_planted_clusters_are_found_and_popularity_is_not_enough(tmp_path: Path) -> None:
    world = clusters(users=40, items=30)
    _, art = evaluated(world, tmp_path, index={"kind": "hnsw", "queries": 20})
    metrics = art.read_json("metrics.json")
    assert metrics["recall@5"] == 1.0
    assert metrics["through_index.recall@5"] == 1.0
    assert metrics["popularity.recall@5"] < 0.5
    assert metrics["index.recall@10"] == 1.0


@pytest.mark.parametrize(
    ("module", "name", "value"), [(holdout, "GROUP_EVENTS", 1), (board, "_LOADED_BYTES", 0)]
)
def test_parts_that_fit_in_memory_change_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: Any, name: str, value: int
) -> None:
    _, whole = evaluated(random_world(), tmp_path / "a")
    monkeypatch.setattr(module, name, value)
    _, parts = evaluated(random_world(), tmp_path / "b", evaluate={"ks": KS, "batch_users": 3})
    assert whole.manifest.counters == parts.manifest.counters
    one, other = whole.read_json("metrics.json"), parts.read_json("metrics.json")
    assert one == pytest.approx(other, abs=1e-12)
    assert whole.read_json("slices.json") == parts.read_json("slices.json")


def test_the_same_run_has_the_same_content(tmp_path: Path) -> None:
    first, second = (evaluated(random_world(), tmp_path / n)[1] for n in "ab")
    assert first.manifest.content == second.manifest.content


def test_all_events_of_a_user_held_out(tmp_path: Path) -> None:
    world = clusters()
    splits = dict(world.splits)
    splits["train"] = [p for p in splits["train"] if p[0] != 7]
    _, art = evaluated(dataclasses.replace(world, splits=splits), tmp_path)
    assert art.counters["cold_users"] == 1
    assert art.counters["cold_events"] == 1
    assert art.counters["users"] == 39


def test_after_a_refit_the_baselines_know_validation_too(tmp_path: Path) -> None:
    """User 7 has validation events only; item 0, validated by eight users, leads for others."""
    world = clusters(users=40, items=30)
    splits = dict(world.splits)
    splits["train"] = [(u, 10 + u % 5, 1.0) for u in range(40) if u != 7]
    splits["valid"] = [(u, 0, 1.0) for u in range(0, 40, 2)] + [(7, 1, 1.0)]
    splits["test"] = [(u, 0, 1.0) for u in range(1, 40, 2)]
    world = dataclasses.replace(world, splits=splits)
    _, before = evaluated(world, tmp_path / "a")
    world = dataclasses.replace(world, model={"refit": [0.5]})
    _, after = evaluated(world, tmp_path / "b")
    assert before.counters["cold_users"] == 1
    assert after.counters["cold_users"] == 0
    assert before.read_json("metrics.json")["popularity.recall@1"] == 0.0
    assert after.read_json("metrics.json")["popularity.recall@1"] == 1.0


@pytest.mark.parametrize("split", ["train", "test"])
def test_nobody_to_ask(tmp_path: Path, split: str) -> None:
    """No test events, or none of a user that training knows: no figures, and no crash."""
    world = clusters()
    splits = {**world.splits, split: []}
    gates = {"least": {"recall@10": 0.0}, "over_popularity": {"recall@10": 0.0}}
    _, art = evaluated(
        dataclasses.replace(world, splits=splits), tmp_path, evaluate={"ks": KS, "gates": gates}
    )
    metrics = art.read_json("metrics.json")
    assert metrics["users"] == 0
    assert "recall@10" not in metrics
    assert [(g["got"], g["passed"]) for g in art.read_json("gates.json")] == [(None, False)] * 2


@pytest.mark.parametrize("kind", ["flat", "hnsw", "ivfpq"])
def test_one_user_and_one_item(tmp_path: Path, kind: str) -> None:
    world = clusters(users=1, items=1)
    world = dataclasses.replace(world, splits={"train": [(0, 0, 1.0)], "test": [(0, 0, 1.0)]})
    _, art = evaluated(world, tmp_path, index={"kind": kind})
    assert art.counters["nothing_left"] == 1
    assert art.counters["repeats"] == 1


def test_ratings(tmp_path: Path) -> None:
    world = dataclasses.replace(
        clusters(users=2, items=3, dim=2),
        splits={
            "train": [(0, 0, 4.0), (0, 1, 2.0), (1, 0, 5.0)],
            "valid": [],
            "test": [(0, 2, 3.0), (1, 1, 1.0)],
        },
        user_ND=np.array([[1, 0], [0, 2]], np.float32),
        item_ND=np.array([[0, 0], [0.5, 0.25], [1, 1]], np.float32),
        user_bias=np.array([0.5, -0.5], np.float32),
        item_bias=np.array([0.0, 0.25, -1.0], np.float32),
        model={"objective": "rating", "similarity": "dot", "mean": 3.0},
    )
    _, art = evaluated(
        world,
        tmp_path,
        train={"objective": "rating"},
        evaluate={"ks": [1], "gates": {"most": {"rmse": 1.0, "mae": 1.5}}},
    )
    metrics = art.read_json("metrics.json")
    # 3 + .5 - 1 + 1 = 3.5 for a 3; 3 - .5 + .25 + .5 = 3.25 for a 1.
    assert metrics["rmse"] == pytest.approx(math.sqrt((0.5**2 + 2.25**2) / 2), abs=1e-6)
    assert metrics["mae"] == pytest.approx((0.5 + 2.25) / 2, abs=1e-6)
    mean = 11 / 3
    assert metrics["rmse.mean_baseline"] == pytest.approx(
        math.sqrt(((mean - 3) ** 2 + (mean - 1) ** 2) / 2)
    )
    # Item 2 was never in train: the mean of all. Item 1 was rated 2.
    assert metrics["mae.item_mean_baseline"] == pytest.approx((mean - 3 + 1) / 2)
    # User 0 gave 4 and 2, user 1 gave 5.
    assert metrics["mae.user_mean_baseline"] == pytest.approx((0 + 4) / 2)
    passed = {g["metric"]: g["passed"] for g in art.read_json("gates.json")}
    assert passed == {"rmse": False, "mae": True}


def test_softmax_has_no_rmse(tmp_path: Path) -> None:
    _, art = evaluated(clusters(), tmp_path)
    assert "rmse" not in art.read_json("metrics.json")


def test_a_gate_on_no_metric_stops_before_the_work(tmp_path: Path) -> None:
    gates = {"least": {"recall@11": 0.5}}
    with pytest.raises(ConfigError, match=r"no metric 'recall@11'; did you mean 'recall@1"):
        evaluated(clusters(), tmp_path, evaluate={"ks": KS, "gates": gates})


def test_rows_that_are_not_live_are_as_if_they_were_not_there(tmp_path: Path) -> None:
    """Retired and shared rows have vectors too, here of the best: nobody is answered them."""
    world = random_world()
    item_ND = np.concatenate((world.item_ND, 9 * world.item_ND[:2], 9 * world.item_ND[:1]))
    train = [*world.splits["train"], *[(u, 39, 1.0) for u in range(5)]]
    wider = dataclasses.replace(
        world,
        items=[*world.items, "old", "older", None],
        item_ND=item_ND.astype(np.float32),
        retired=frozenset({"old", "older", None}),
    )
    run, one = evaluated(world, tmp_path / "one")
    _, two = evaluated(wider, tmp_path / "two")
    for name in ("metrics.json", "slices.json"):
        assert one.read_json(name) == two.read_json(name)
    # Events of a shared row, which popularity and the slices may not count.
    third = dataclasses.replace(wider, splits={**world.splits, "train": train})
    _, three = evaluated(third, tmp_path / "three")
    assert one.read_json("metrics.json") == three.read_json("metrics.json")
    assert one.read_json("slices.json") == three.read_json("slices.json")
    assert run.artifact("index").counters["indexed"] == 37
