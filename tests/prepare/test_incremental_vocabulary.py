"""Ids that never move: rows over several runs, hysteresis, bad previous runs."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from pyspark.sql import SparkSession

from embedmill.pipeline.errors import (
    ConfigError,
    EmbedmillError,
    MissingArtifactError,
    StaleArtifactError,
)
from embedmill.pipeline.prepare.vocabulary import base_vocabulary, row_numbers
from embedmill.pipeline.prepare.vocabulary.diff import compare
from embedmill.pipeline.store.run import Run
from embedmill.schemas.run import PUBLISHED, Published
from embedmill.schemas.vocab import SPEC
from tests.support.prepare_builds import build_stage, hashes, rows
from tests.support.vocabulary_histories import (
    Pair,
    Vocabulary,
    continued,
    counters,
    held,
    history,
    with_events,
)

# Items need two events, users one.
FIRST = [("u1", "a"), ("u1", "b"), ("u2", "a"), ("u2", "b"), ("u3", "a"), ("u3", "c")]
SECOND = [("u1", "a"), ("u1", "b"), ("u4", "a"), ("u4", "c"), ("u2", "c")]
THIRD = [
    ("u3", "a"), ("u3", "c"), ("u5", "a"), ("u5", "b"), ("u1", "c"), ("u1", "d"), ("u5", "d"),
]  # fmt: skip
FOURTH = [("u2", "b"), ("u2", "a"), ("u4", "b"), ("u4", "a")]
LOGS = [FIRST, SECOND, THIRD, FOURTH]
# id: row, count, missed, live
HISTORY: list[Vocabulary] = [
    {
        "users": {"u1": (0, 2, 0, True), "u2": (1, 2, 0, True), "u3": (2, 1, 0, True)},
        "items": {"a": (0, 3, 0, True), "b": (1, 2, 0, True)},
    },
    {  # b is below its minimum and stays in use, u3 has no event left; u4 and c are new
        "users": {
            "u1": (0, 2, 0, True), "u2": (1, 1, 0, True), "u3": (2, 0, 1, False),
            "u4": (3, 2, 0, True),
        },
        "items": {"a": (0, 2, 0, True), "b": (1, 1, 1, True), "c": (2, 2, 0, True)},
    },
    {  # b is retired, its event dropped; u3 is back on its row
        "users": {
            "u1": (0, 2, 0, True), "u2": (1, 0, 1, False), "u3": (2, 2, 0, True),
            "u4": (3, 0, 1, False), "u5": (4, 2, 0, True),
        },
        "items": {
            "a": (0, 2, 0, True), "b": (1, 0, 2, False), "c": (2, 2, 0, True),
            "d": (3, 2, 0, True),
        },
    },
    {  # b is back on its row
        "users": {
            "u1": (0, 0, 1, False), "u2": (1, 2, 0, True), "u3": (2, 0, 1, False),
            "u4": (3, 2, 0, True), "u5": (4, 0, 1, False),
        },
        "items": {
            "a": (0, 2, 0, True), "b": (1, 2, 0, True), "c": (2, 0, 1, False),
            "d": (3, 0, 1, False),
        },
    },
]  # fmt: skip
RULE = {"min_item_count": 2, "retire_after": 1}


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory, sail: SparkSession) -> list[Run]:
    """The four runs; read only."""
    return history(sail, tmp_path_factory.mktemp("told"), LOGS, **RULE)


def test_a_history_worked_out_by_hand(told: list[Run]) -> None:
    for run, expected in zip(told, HISTORY, strict=True):
        assert held(run) == expected
        found = run.artifact("vocab").counters
        assert found.items() >= counters(expected).items()
    third = told[2].artifact("vocab").counters
    assert {k: third[k] for k in ("events_in", "events_kept", "events_dropped")} == {
        "events_in": 7, "events_kept": 6, "events_dropped": 1,
    }  # fmt: skip
    assert (third["users_new"], third["users_back"], third["users_gone"]) == (1, 1, 2)
    assert (third["items_new"], third["items_back"], third["items_gone"]) == (1, 0, 1)
    assert third["items_dropped"] == 1
    assert not list(Path(told[2].storage.root, "vocab", "scratch").rglob("*.parquet"))


def test_the_oracle_of_the_property_agrees_with_the_hand() -> None:
    before: Vocabulary = {}
    for pairs, expected in zip(LOGS, HISTORY, strict=True):
        before = continued(before, pairs, (1, 2), 1)
        assert before == expected


def test_retired_rows_have_no_events_in_the_shards(told: list[Run], sail: SparkSession) -> None:
    run = told[2]
    build_stage(sail, run, "shards")
    found = [r for split in ("train", "valid", "test") for r in rows(run, "shards", split)]
    users = {row: raw for raw, (row, *_) in HISTORY[2]["users"].items()}
    items = {row: raw for raw, (row, *_) in HISTORY[2]["items"].items()}
    pairs = [(users[r["user_row"]], items[r["item_row"]]) for r in found]
    assert sorted(pairs) == sorted(p for p in THIRD if p != ("u5", "b"))
    assert run.artifact("shards").counters["dropped"] == 1


def test_what_came_went_and_stayed(told: list[Run], sail: SparkSession) -> None:
    found = compare(sail, *(run.artifact("vocab") for run in told[1:3]), examples=2)
    users = {"before": 3, "after": 3, "came": 2, "back": 1, "went": 2, "retired": 2, "stayed": 1}
    assert found["users"] == {**users, "moved": 0, "examples": {
        "came": [{"id": "u3", "before": 0, "after": 2}, {"id": "u5", "before": 0, "after": 2}],
        "went": [{"id": "u4", "before": 2, "after": 0}, {"id": "u2", "before": 1, "after": 0}],
        "stayed": [{"id": "u1", "before": 2, "after": 2}],
    }}  # fmt: skip
    items = {"before": 3, "after": 3, "came": 1, "back": 0, "went": 1, "retired": 1, "stayed": 2}
    assert found["items"].items() >= {**items, "moved": 0}.items()


def test_a_diff_with_a_run_that_does_not_continue(
    told: list[Run], sail: SparkSession, tmp_path: Path
) -> None:
    other = history(sail, tmp_path, [FOURTH], **RULE)[0]
    found = compare(sail, told[0].artifact("vocab"), other.artifact("vocab"), examples=9)
    # a and b were rows 0 and 1 and still are; u2 was row 1 and is row 0.
    assert (found["items"]["stayed"], found["items"]["moved"]) == (2, 0)
    assert (found["users"]["stayed"], found["users"]["moved"]) == (1, 1)
    assert (found["users"]["went"], found["users"]["retired"]) == (2, 0)


def random_logs(seed: int, runs: int, number: int = 60) -> list[list[Pair]]:
    """Logs in which ids fade in and out."""
    draw = random.Random(seed)
    logs = []
    for run in range(runs):
        shown = [f"ü{n}" for n in range(12) if draw.random() < 0.7 or n == run]
        logs.append(
            [
                (draw.choice(shown), f"i{int(draw.random() ** 2 * 14 + run) % 17}")
                for _ in range(number)
            ]
        )
    return logs


@settings(
    max_examples=4,
    deadline=None,
    phases=[p for p in Phase if p is not Phase.shrink],  # an example takes seconds
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    st.integers(0, 10**6),
    st.sampled_from([(1, 1), (3, 1), (2, 4)]),
    st.integers(0, 2),
)
def test_no_id_moves_and_no_row_is_given_twice(
    tmp_path_factory: pytest.TempPathFactory,
    sail: SparkSession,
    seed: int,
    least: tuple[int, int],
    retire_after: int,
) -> None:
    logs = random_logs(seed, runs=3)
    rule = {"min_user_count": least[0], "min_item_count": least[1], "retire_after": retire_after}
    root = tmp_path_factory.mktemp("property")
    before: Vocabulary = {}
    owner: dict[tuple[str, int], str] = {}
    for run, pairs in zip(history(sail, root, logs, **rule), logs, strict=True):
        found = held(run)
        for side, ids in found.items():
            for raw, (row, *_) in ids.items():
                assert owner.setdefault((side, row), raw) == raw
            assert ids.keys() >= before.get(side, {}).keys()
            assert all(ids[raw][0] == value[0] for raw, value in before.get(side, {}).items())
        before = continued(before, pairs, least, retire_after)
        assert found == before


def test_order_files_ranges_and_buckets_change_nothing(
    tmp_path: Path, sail: SparkSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    logs, rule = random_logs(5, runs=3, number=200), {**RULE, "oov_rows": 2, "min_user_count": 9}
    plain = history(sail, tmp_path / "plain", logs, **rule)
    draw = random.Random(6)
    shuffled = [draw.sample(pairs, len(pairs)) for pairs in logs]
    monkeypatch.setattr(row_numbers, "_RANGE_ROWS", 3)
    monkeypatch.setattr(row_numbers, "_SAMPLE", 2)
    monkeypatch.setattr("embedmill.pipeline.prepare.engine.frames.TASK_BYTES", 64)
    again = history(sail, tmp_path / "again", shuffled, **rule)
    for one, two in zip(plain, again, strict=True):
        assert hashes(one, "vocab", "users") == hashes(two, "vocab", "users")
        assert hashes(one, "vocab", "items") == hashes(two, "vocab", "items")
        assert one.artifact("vocab").manifest.content == two.artifact("vocab").manifest.content


def test_rows_go_on_in_the_middle_of_a_file(
    tmp_path: Path, sail: SparkSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(row_numbers, "ROWS_PER_FILE", 3)
    logs = [[(f"u{n}", "x") for n in range(5)], [(f"u{n}", "x") for n in range(3, 9)]]
    one, two = history(sail, tmp_path, logs)
    assert [f.rows for f in one.artifact("vocab").files("users")] == [3, 2]
    assert [f.rows for f in two.artifact("vocab").files("users")] == [3, 3, 3]
    assert held(two) == continued(held(one), logs[1], (1, 1), 3)


@pytest.fixture
def few_tasks(spark: SparkSession) -> Iterator[SparkSession]:
    """A task of Python costs Spark more than these logs."""
    key = "spark.sql.shuffle.partitions"
    before = spark.conf.get(key)
    spark.conf.set(key, "2")
    yield spark
    spark.conf.set(key, before or "")


@pytest.mark.exhaustive
@pytest.mark.spark
def test_both_engines_continue_alike(
    tmp_path: Path, sail: SparkSession, few_tasks: SparkSession
) -> None:
    """With shared rows, and ids that are new, back and retired."""
    rule = {**RULE, "oov_rows": 3}
    before = history(sail, tmp_path / "sail", LOGS[:2], **rule)[-1]
    rule["previous"] = before.storage.root
    found = []
    for name, session in (("ours", sail), ("theirs", few_tasks)):
        run = with_events(tmp_path, name, THIRD, vocab=rule)
        for stage in ("vocab", "shards"):
            build_stage(session, run, stage)
        moved = compare(session, before.artifact("vocab"), run.artifact("vocab"), 3)
        contents = [run.artifact(stage).manifest.content for stage in ("vocab", "shards")]
        found.append((held(run), hashes(run, "shards"), contents, moved))
    assert found[0] == found[1]
    counters = run.artifact("vocab").counters
    assert all(counters[f"users_{state}"] for state in ("new", "back", "retired"))


# Ten weeks of a growing log, a run a week.


def test_ten_weekly_runs_end_as_one_run_over_all(tmp_path: Path, sail: SparkSession) -> None:
    draw = random.Random(10)
    weeks = [
        [
            (f"u{int(draw.random() ** 2 * (20 + 4 * week))}", f"i{int(draw.random() ** 2 * 40)}")
            for _ in range(60)
        ]
        for week in range(10)
    ]
    so_far = [[pair for week in weeks[: n + 1] for pair in week] for n in range(10)]
    rule = {"min_user_count": 3, "min_item_count": 4}
    runs = history(sail, tmp_path / "weekly", so_far, **rule)
    last = held(runs[-1])
    for run in runs:
        for side, ids in held(run).items():
            assert {raw: value[0] for raw, value in ids.items()}.items() <= {
                raw: value[0] for raw, value in last[side].items()
            }.items()
    whole = held(history(sail, tmp_path / "whole", so_far[-1:], **rule)[0])
    for side, ids in whole.items():
        assert {i: v[1] for i, v in ids.items()} == {i: v[1] for i, v in last[side].items()}
        assert {i: v[0] for i, v in ids.items()} != {i: v[0] for i, v in last[side].items()}


# Previous runs that cannot be continued.


def refused(run: Run) -> EmbedmillError:
    with pytest.raises(EmbedmillError) as caught:
        base_vocabulary.check_base_vocabulary(run.config)
    assert "\n" not in str(caught.value)
    assert "vocab.previous" in str(caught.value) or "contract" in str(caught.value)
    return caught.value


def follower(root: Path, named: str, **sections: Any) -> Run:
    vocab = {"previous": named, **sections.pop("vocab", {})}
    return with_events(root, "next", SECOND, vocab=vocab, **sections)


@pytest.mark.parametrize("named", ["nowhere", "/nowhere/at/all", "memory://nothing/here"])
def test_a_previous_run_that_is_missing(tmp_path: Path, named: str) -> None:
    error = refused(follower(tmp_path, named))
    assert isinstance(error, MissingArtifactError)
    assert "there is no run" in str(error)


def test_a_previous_run_that_is_unfinished(tmp_path: Path) -> None:
    with_events(tmp_path, "begun", FIRST)
    error = refused(follower(tmp_path, "begun"))
    assert isinstance(error, MissingArtifactError)
    assert "the previous run has no finished vocabulary. Finish it with `embedmill run`" in str(
        error
    )


@pytest.mark.parametrize("side", ["user", "item"])
def test_a_previous_run_over_other_columns(told: list[Run], tmp_path: Path, side: str) -> None:
    run = follower(tmp_path, told[0].storage.root, events={side: "account"})
    error = refused(run)
    assert isinstance(error, ConfigError)
    assert f"run's {side}s come from column '{side}_id', events.{side} is 'account'" in str(error)


def test_a_run_does_not_continue_itself(tmp_path: Path) -> None:
    error = refused(follower(tmp_path, "next"))
    assert isinstance(error, ConfigError)
    assert "a run cannot continue itself" in str(error)


def test_shared_rows_are_reserved_once(tmp_path: Path, sail: SparkSession) -> None:
    first = with_events(tmp_path, "first", FIRST, vocab={"oov_rows": 2})
    build_stage(sail, first, "vocab")
    for wanted in (0, 3):
        error = refused(follower(tmp_path, "first", vocab={"oov_rows": wanted}))
        assert isinstance(error, ConfigError)
        assert f"vocab.oov_rows is {wanted}. Set vocab.oov_rows = 2" in str(error)


def test_shared_rows_come_after_known_ids(
    told: list[Run], tmp_path: Path, sail: SparkSession
) -> None:
    run = follower(tmp_path, told[0].storage.root, vocab={"oov_rows": 2})
    build_stage(sail, run, "vocab")
    spec = run.artifact("vocab").read_json(SPEC)
    assert (spec.users.shared_from, spec.users.total) == (4, 6)
    assert held(run)["users"]["u4"][0] == 3


def test_a_previous_run_of_another_version(told: list[Run], tmp_path: Path) -> None:
    shutil.copytree(told[0].storage.root, tmp_path / "old")
    path = tmp_path / "old" / "vocab" / "manifest.json"
    said = json.loads(path.read_text())
    artifact = told[0].artifact("vocab").manifest
    said["version"] = 1
    said["content"] = type(artifact).content_hash("vocab", 1, artifact.files, artifact.counters)
    path.write_text(json.dumps(said))
    error = refused(follower(tmp_path, "old"))
    assert isinstance(error, StaleArtifactError)
    assert "this vocabulary is version 1, this program reads version 2" in str(error)


# What a finished vocabulary was built from.


def test_the_fingerprint_is_of_the_content_of_the_previous(
    told: list[Run], tmp_path: Path, sail: SparkSession
) -> None:
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(told[0].storage.root, elsewhere)
    run = follower(tmp_path, told[0].storage.root, vocab=RULE)
    build_stage(sail, run, "vocab")
    moved = Run(run.config.model_copy(update={
        "vocab": run.config.vocab.model_copy(update={"previous": str(elsewhere)})
    }))  # fmt: skip
    assert moved.up_to_date("vocab", base_vocabulary.source_stamps(moved))
    other = Run(run.config.model_copy(update={
        "vocab": run.config.vocab.model_copy(update={"previous": told[1].storage.root})
    }))  # fmt: skip
    with pytest.raises(StaleArtifactError, match=r"its source vocab\.previous has changed"):
        other.up_to_date("vocab", base_vocabulary.source_stamps(other))


def test_the_published_run_is_continued(tmp_path: Path, sail: SparkSession) -> None:
    pointer = tmp_path / "published.json"
    rule = {**RULE, "previous": "published"}
    first = with_events(tmp_path, "monday", FIRST, vocab=rule)
    assert base_vocabulary.find_base_vocabulary(first) is None
    build_stage(sail, first, "vocab")
    entry = Published(run="monday", content="", stages={}, published="2024-01-01T00:00:00+00:00")
    pointer.write_bytes(PUBLISHED.encode(entry))
    # Published, it does not continue itself; nor is it stale for having been published.
    assert base_vocabulary.find_base_vocabulary(first) is None
    assert first.up_to_date("vocab", base_vocabulary.source_stamps(first))
    second = with_events(tmp_path, "tuesday", SECOND, vocab=rule)
    build_stage(sail, second, "vocab")
    assert held(second) == HISTORY[1]
    continues = second.artifact("vocab").read_json("previous.json")
    assert continues == {"continues": str(tmp_path / "monday")}
    entry = entry.model_copy(update={"run": "tuesday", "base_run": continues["continues"]})
    pointer.write_bytes(PUBLISHED.encode(entry))
    found = base_vocabulary.find_base_vocabulary(second)
    assert found is not None
    assert found.storage.root == str(tmp_path / "monday" / "vocab")
    assert second.up_to_date("vocab", base_vocabulary.source_stamps(second))
    assert first.up_to_date("vocab", base_vocabulary.source_stamps(first))
