"""Rows that ids out of the vocabulary share."""

from __future__ import annotations

from pathlib import Path

from pyspark.sql import SparkSession

from embedmill.pipeline.store.run import Run
from embedmill.schemas.vocab import SPEC
from tests.support.prepare_builds import build_stage, rows
from tests.support.vocabulary_histories import Pair, held, with_events


def shared_log() -> list[Pair]:
    """Users a and b are frequent, r0 … r19 come once; items x and y are frequent."""
    often = [(user, item) for user in "ab" for item in "xy" for _ in range(3)]
    return [*often, *((f"r{n}", "x") for n in range(20)), ("a", "rare")]


def shard_rows(run: Run) -> set[tuple[int, int]]:
    parts = ("train", "valid", "test")
    return {(r["user_row"], r["item_row"]) for p in parts for r in rows(run, "shards", p)}


def test_ids_out_of_the_vocabulary_share_rows(tmp_path: Path, sail: SparkSession) -> None:
    rule = {"min_user_count": 3, "min_item_count": 3, "oov_rows": 4}
    run = with_events(tmp_path, "one", shared_log(), vocab=rule)
    for stage in ("vocab", "shards"):
        build_stage(sail, run, stage)
    vocab, spec = run.artifact("vocab"), run.artifact("vocab").read_json(SPEC)
    assert (spec.users.total, spec.users.shared_from, spec.users.shared) == (6, 2, 4)
    users = vocab.read_tables("users").to_pylist()
    assert [(r["id"], r["live"]) for r in users[2:]] == [(None, False)] * 4
    # Nothing is dropped, so a has its event with the rare item.
    assert {r["id"]: r["count"] for r in users[:2]} == {"a": 7, "b": 6}
    assert sum(r["count"] for r in users[2:]) == 20
    assert max(r["count"] for r in users[2:]) < 20
    items = vocab.read_tables("items").to_pylist()
    assert [(r["id"], r["count"]) for r in items[:2]] == [("x", 26), ("y", 6)]
    assert sum(r["count"] for r in items[2:]) == 1
    c = vocab.counters
    assert (c["events_kept"], c["events_dropped"], c["users_dropped"]) == (33, 0, 20)
    c = run.artifact("shards").counters
    held_out = c["shared_held_out"]
    assert c["dropped"] == held_out > 0
    assert c["train"] + c["valid"] + c["test"] + held_out == 33
    for split in ("valid", "test"):
        found = rows(run, "shards", split)
        assert found
        assert all(r["user_row"] < 2 and r["item_row"] < 2 for r in found)


def test_shared_rows_are_stable_over_runs(tmp_path: Path, sail: SparkSession) -> None:
    """The hash is of the id and the seed of the run that reserved the rows."""
    rule = {"min_user_count": 3, "min_item_count": 1, "oov_rows": 5}
    logs = [
        shared_log(),
        [*shared_log(), *[("new", "z")] * 4],
        [*shared_log(), *[("r7", "x")] * 3],
    ]
    found = []
    for number, log in enumerate(logs):
        before = {"previous": f"n{number - 1}"} if number else {}
        seed = {"seed": 10 + number}
        run = with_events(tmp_path, f"n{number}", log, vocab={**rule, **before}, run=seed)
        build_stage(sail, run, "vocab")
        vocab = run.artifact("vocab")
        assert vocab.read_json(SPEC).seed == 10
        shared = {r["row"]: r["count"] for r in vocab.read_tables("users").to_pylist()[2:7]}
        found.append(shared)
    assert found[0] == found[1]
    # r7 has a row now; only the shared row that it was in has one event fewer.
    fewer = {row: n - found[2][row] for row, n in found[0].items() if n != found[2][row]}
    assert list(fewer.values()) == [1]
    assert held(run)["users"]["r7"][0] == 8


def test_what_a_shared_row_would_leak_is_dropped(tmp_path: Path, sail: SparkSession) -> None:
    """Cut by time, no event after the cut may train, and none of a shared row is asked for."""
    rule = {"min_user_count": 3, "min_item_count": 3, "oov_rows": 4}
    split = {"split": "time", "valid": 0.2, "test": 0.2}
    run = with_events(tmp_path, "one", shared_log(), vocab=rule, shards=split)
    for stage in ("vocab", "shards"):
        build_stage(sail, run, stage)
    counters = run.artifact("shards").counters
    # All rare users come after the frequent ones: of 33 events the last 13 are held out.
    assert (counters["train"], counters["valid"], counters["test"]) == (20, 0, 0)
    assert counters["shared_held_out"] == counters["dropped"] == 13
    latest = max(r["time"] for r in rows(run, "shards", "train"))
    assert latest == 19_000_000
