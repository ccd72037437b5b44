"""Pairs in the stage `shards`: from train events alone, whole, where they belong."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from embedmill.pipeline.config import parse
from embedmill.pipeline.errors import ConfigError
from embedmill.pipeline.store.run import Run
from tests.support.prepare_builds import Tree, build, hashes, rows, tree, written
from tests.support.worlds import PlantedWorld

Counts = Counter[tuple[int, int]]


@pytest.fixture
def world(tmp_path: Path) -> str:
    return str(PlantedWorld().write(tmp_path / "world.tsv"))


def pairs_tree(root: Path, log: Any, **keys: Any) -> Tree:
    return tree(root, log, shards={"split": "last", "valid": 2, "test": 1, "pairs": keys})


def written_pairs(run: Run, folder: str) -> Counts:
    return Counter(
        {(r["center_row"], r["context_row"]): r["count"] for r in rows(run, "shards", folder)}
    )


def neighbours(run: Run, splits: tuple[str, ...], window: int) -> Counts:
    """Pairs of the whole histories of the users, by a plain loop over what `shards` wrote."""
    events = [r for split in splits for r in rows(run, "shards", split)]
    history: dict[int, list[int]] = defaultdict(list)
    for one in sorted(events, key=lambda r: (r["time"], r["hash"], r["item_row"])):
        history[one["user_row"]].append(one["item_row"])
    pairs: Counts = Counter()
    for items in history.values():
        for a, first in enumerate(items):
            for b, second in enumerate(items):
                if first != second and abs(a - b) <= window:
                    pairs[first, second] += 1
    return pairs


def test_pairs_are_of_train_events_alone(tmp_path: Path, sail: SparkSession, world: str) -> None:
    run = build(sail, pairs_tree(tmp_path, world, window=2, with_valid=True))
    assert written_pairs(run, "pairs") == neighbours(run, ("train",), 2)
    both = neighbours(run, ("train", "valid"), 2)
    assert written_pairs(run, "pairs_with_valid") == both
    counters = run.artifact("shards").counters
    assert counters["pairs_with_valid_counted"] == both.total()
    assert counters["pairs_with_valid"] == len(both)
    assert (counters["pairs_sessions"], counters["pairs_sessions_cut"]) == (60, 0)
    # The pairs change nothing of what was there before.
    plain = build(sail, tree(tmp_path / "b", world, shards={"valid": 2, "test": 1}))
    for split in ("train", "valid", "test"):
        assert hashes(plain, "shards", split) == hashes(run, "shards", split)
    assert plain.artifact("shards").files("pairs") == []


def test_files_by_center_in_hash_order(tmp_path: Path, sail: SparkSession, world: str) -> None:
    artifact = build(sail, pairs_tree(tmp_path, world)).artifact("shards")
    files = artifact.files("pairs")
    assert [f.path for f in files] == [f"pairs/part-{p:05d}.parquet" for p in range(4)]
    for partition, entry in enumerate(files):
        table = artifact.read_table(entry.path)
        assert {row % 4 for row in table["center_row"].to_pylist()} <= {partition}
        order = table["hash"].to_pylist()
        assert order == sorted(order)
        assert len(set(order)) == len(order)


def a_log(folder: Path) -> list[str]:
    """Two files with repeats, ties in time and a popular item."""
    draw = random.Random(4)
    lines = [
        f"u{draw.randrange(30)}\ti{int(draw.random() ** 3 * 25)}\t{draw.randrange(300) * 60}\t1"
        for _ in range(1500)
    ]
    parts = [lines[:600], lines[600:]]
    return [str(written(folder / f"{n}.tsv", part)) for n, part in enumerate(parts)]


THINNED = {
    "window": 0, "window_minutes": 20, "session_gap_minutes": 30, "max_session": 12,
    "subsample": 0.02, "with_valid": True,
}  # fmt: skip


def test_the_order_of_the_log_does_not_matter(tmp_path: Path, sail: SparkSession) -> None:
    one = build(sail, pairs_tree(tmp_path / "a", a_log(tmp_path), **THINNED))
    lines = [
        line
        for path in a_log(tmp_path)
        for line in Path(path).read_text().splitlines()
        if not line.startswith("user_id")
    ]
    turned = str(written(tmp_path / "turned.tsv", lines[::-1]))
    two = build(sail, pairs_tree(tmp_path / "b", turned, **THINNED))
    assert hashes(one, "shards") == hashes(two, "shards")
    counters = one.artifact("shards").counters
    assert 0 < counters["pairs_thinned_out"] < counters["train"]
    assert counters["pairs_sessions_cut"] > 0
    assert counters["pairs_events"] + counters["pairs_thinned_out"] == counters["train"]
    fewer = {**THINNED, "subsample": 0.001}
    again = build(sail, pairs_tree(tmp_path / "c", turned, **fewer)).artifact("shards").counters
    assert again["pairs_events"] < counters["pairs_events"]


def test_sessions_of_one_event_have_no_pairs(tmp_path: Path, sail: SparkSession) -> None:
    log = str(written(tmp_path / "log", [f"u{n}\ti{n % 3}\t{n}\t1" for n in range(20)]))
    run = build(sail, pairs_tree(tmp_path, log))
    counters = run.artifact("shards").counters
    assert (counters["pairs"], counters["pairs_found"], counters["pairs_sessions"]) == (0, 0, 20)
    assert len(run.artifact("shards").files("pairs")) == 4


def test_a_shared_user_has_no_sessions(tmp_path: Path, sail: SparkSession) -> None:
    """Users that came once share two rows: what they chose one after another is no pair."""
    often = [f"often\ti{n % 4}\t{n}\t1" for n in range(8)]
    once = [f"once{n}\ti{n % 4}\t{n}\t1" for n in range(30)]
    config = pairs_tree(tmp_path, str(written(tmp_path / "log", often + once)), window=0)
    config["vocab"] = {"min_user_count": 2, "oov_rows": 2}
    run = build(sail, config)
    counters = run.artifact("shards").counters
    shared = counters["pairs_shared_out"]
    assert shared + counters["shared_held_out"] == 30
    assert counters["pairs_events"] == counters["train"] - shared == 5
    assert counters["pairs_sessions"] == 1
    often_only = Counter(r["item_row"] for r in rows(run, "shards", "train") if r["user_row"] == 0)
    assert {a for a, _ in written_pairs(run, "pairs")} == set(often_only)


def test_a_log_without_times_has_no_sessions(tmp_path: Path) -> None:
    config = tree(tmp_path, "log", events={"time": ""}, shards={"split": "random", "pairs": {}})
    config["shards"] |= {"valid": 0.1, "test": 0.1}
    with pytest.raises(ConfigError, match=r"events\.time: needed for \[shards\.pairs\]"):
        parse(config)
