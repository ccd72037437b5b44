"""Stage `shards` on Sail: every event in one split, no leakage, rows where they belong."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyspark.sql import DataFrame, SparkSession

from embedmill.pipeline.errors import ConfigError, InputError
from embedmill.pipeline.prepare.engine.frames import collect
from embedmill.pipeline.prepare.splits import boundaries
from embedmill.pipeline.store.run import Run
from tests.support.prepare_builds import Tree, build, rows, tree, written
from tests.support.worlds import PlantedWorld

NAMES = ("train", "valid", "test")
Event = tuple[str, str, int, float]


def events_of(run: Run, name: str) -> list[Event]:
    """A split's events with their ids back, sorted."""
    ids = {side: [r["id"] for r in rows(run, "vocab", f"{side}s")] for side in ("user", "item")}
    return sorted(
        (ids["user"][r["user_row"]], ids["item"][r["item_row"]], r["time"], r["weight"])
        for r in rows(run, "shards", name)
    )


@pytest.fixture
def world(tmp_path: Path) -> str:
    return str(PlantedWorld().write(tmp_path / "world.tsv"))


def test_last_conserves_events_and_never_leaks(
    tmp_path: Path, sail: SparkSession, world: str
) -> None:
    run = build(sail, tree(tmp_path, world, shards={"split": "last", "valid": 2, "test": 1}))
    found = {name: events_of(run, name) for name in NAMES}
    expected = sorted(
        (r["user"], r["item"], r["time"], pytest.approx(r["weight"], rel=1e-6))
        for r in rows(run, "events", "data")
    )
    assert sorted(e for events in found.values() for e in events) == expected
    by_user: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for name, events in found.items():
        for user, _, time, _ in events:
            by_user[user][name].append(time)
    for times in by_user.values():
        assert [len(times[name]) for name in NAMES] == [5, 2, 1]
        assert max(times["train"]) <= min(times["valid"])
        assert max(times["valid"]) <= min(times["test"])


def test_files_by_partition_in_hash_order(tmp_path: Path, sail: SparkSession, world: str) -> None:
    artifact = build(sail, tree(tmp_path, world)).artifact("shards")
    for name in NAMES:
        files = artifact.files(name)
        assert [f.path for f in files] == [f"{name}/part-{p:05d}.parquet" for p in range(4)]
        for partition, entry in enumerate(files):
            table = artifact.read_table(entry.path)
            assert {row % 4 for row in table["user_row"].to_pylist()} <= {partition}
            hashes = table["hash"].to_pylist()
            assert hashes == sorted(hashes)


def test_the_seed_changes_the_order_and_the_draw(
    tmp_path: Path, sail: SparkSession, world: str
) -> None:
    shares = {"split": "random", "valid": 0.2, "test": 0.2}
    one = build(sail, tree(tmp_path / "a", world, shards=shares))
    run = {"name": "tiny", "root": str(tmp_path / "b"), "partitions": 4, "seed": 2}
    two = build(sail, {**tree(tmp_path / "b", world, shards=shares), "run": run})
    assert events_of(one, "test") != events_of(two, "test")
    total = one.artifact("shards").counters
    assert total["test"] / total["events_in"] == pytest.approx(0.2, abs=0.06)
    assert total["valid"] / total["events_in"] == pytest.approx(0.2, abs=0.06)


def test_time_by_shares_and_by_dates(tmp_path: Path, sail: SparkSession) -> None:
    log = str(written(tmp_path / "log", [f"u{n % 5}\ti{n % 7}\t{n * 1000}\t1" for n in range(100)]))
    run = build(
        sail, tree(tmp_path / "a", log, shards={"split": "time", "valid": 0.2, "test": 0.1})
    )
    times = {name: [e[2] // 10**9 for e in events_of(run, name)] for name in NAMES}
    assert sorted(times["train"]) == list(range(70))
    assert sorted(times["valid"]) == list(range(70, 90))
    assert sorted(times["test"]) == list(range(90, 100))
    dates = {
        "split": "time",
        "valid_from": "1970-01-01T00:00:10Z",
        "test_from": "1970-01-01T01:00:00",
    }
    run = build(sail, tree(tmp_path / "b", log, shards=dates))
    sizes = {name: len(events_of(run, name)) for name in NAMES}
    assert sizes == {"train": 1, "valid": 3, "test": 96}
    swapped = {**dates, "valid_from": dates["test_from"], "test_from": dates["valid_from"]}
    with pytest.raises(ConfigError, match="valid_from is later than test_from"):
        build(sail, tree(tmp_path / "c", log, shards=swapped))


def test_events_of_one_time_are_never_separated(tmp_path: Path, sail: SparkSession) -> None:
    lines = [f"u{n}\ti{n % 3}\t{[5, 6, 7][n // 10]}\t1" for n in range(30)]
    log = str(written(tmp_path / "log", lines))
    run = build(sail, tree(tmp_path, log, shards={"split": "time", "valid": 0.2, "test": 0.4}))
    sizes = {name: len(events_of(run, name)) for name in NAMES}
    assert sizes == {"train": 20, "valid": 0, "test": 10}


@pytest.mark.parametrize("bins", [2, 3, 1 << 16])
def test_the_boundary_times_of_shares_are_exact(
    sail: SparkSession, monkeypatch: pytest.MonkeyPatch, bins: int
) -> None:
    monkeypatch.setattr(boundaries, "_BINS", bins)
    times = sorted([-(10**6), 0, 1, 2, 3, 3, 3, 900, 10**6, 10**6 + 1, 5 * 10**14])
    frame = sail.createDataFrame([(t,) for t in times], "time long")
    shares = [0.0, 0.001, 0.1, 0.5, 0.77, 1.0]
    days = [("1969-12-31", 1), ("1970-01-01", 9), ("1985-11-05", 1)]
    for chosen in (shares, [0.1], [0.5, 0.5]):
        found = boundaries.boundary_times(
            frame, chosen, boundaries.TimeRange.of_days(days, len(times))
        )
        for share, first in zip(chosen, found, strict=True):
            most = int(share * len(times))
            assert sum(t >= first for t in times) <= most
            earlier = max((t for t in times if t < first), default=None)
            if earlier is not None:  # one time earlier would be too many
                assert sum(t >= earlier for t in times) > most


def test_both_cuts_are_found_in_the_same_looks(
    sail: SparkSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = []

    def counted(frame: DataFrame) -> pa.Table:
        looks.append(frame)
        return collect(frame)

    monkeypatch.setattr(boundaries, "collect", counted)
    frame = sail.range(0, 10**5).selectExpr("id * 1000000 as time")
    span = boundaries.TimeRange(0, 10**11, 10**5)
    assert boundaries.boundary_times(frame, [0.2, 0.1], span) == [
        79_999 * 10**6 + 1,
        89_999 * 10**6 + 1,
    ]
    assert len(looks) == 3


def given_tree(tmp_path: Path, sections: dict[str, Any], values: str) -> Tree:
    lines = [f"u{n % 4}\ti{n % 5}\t{n}\t{v}" for n, v in enumerate(values)]
    path = tmp_path / "log"
    path.write_text("\n".join(["user_id\titem_id\ttime\tpart", *lines]) + "\n")
    events = {"time": "time", "weight": "", "split": "part"}
    shards = {"split": "given", "given_train": ["a", "A"], "given_valid": "v", "given_test": "t"}
    return tree(tmp_path, str(path), events=events, shards={**shards, **sections})


def test_given_by_a_column(tmp_path: Path, sail: SparkSession) -> None:
    run = build(sail, given_tree(tmp_path, {"valid": 0.5, "test": 0}, "aAavtaaAtv"))
    times = {name: sorted(e[2] // 10**6 for e in events_of(run, name)) for name in NAMES}
    assert times == {"train": [0, 1, 2, 5, 6, 7], "valid": [3, 9], "test": [4, 8]}


def test_given_without_validation_takes_a_share_of_train(
    tmp_path: Path, sail: SparkSession
) -> None:
    run = build(sail, given_tree(tmp_path, {"valid": 0.3, "test": 0}, "a" * 200 + "t" * 20))
    counters = run.artifact("shards").counters
    assert counters["test"] == 20
    assert 30 < counters["valid"] < 90


def test_an_unknown_value_of_the_split(tmp_path: Path, sail: SparkSession) -> None:
    with pytest.raises(InputError, match="the split column holds 'x', 'y'"):
        build(sail, given_tree(tmp_path, {"valid": 0, "test": 0}, "aaxtyv"))


def test_one_user_and_one_item(tmp_path: Path, sail: SparkSession) -> None:
    user = str(written(tmp_path / "user", [f"only\ti{n}\t{n}\t1" for n in range(5)]))
    counters = build(sail, tree(tmp_path / "a", user)).artifact("shards").counters
    assert [counters[name] for name in NAMES] == [3, 1, 1]
    item = str(written(tmp_path / "item", [f"u{n}\tonly\t{n}\t1" for n in range(5)]))
    counters = build(sail, tree(tmp_path / "b", item)).artifact("shards").counters
    assert [counters[name] for name in NAMES] == [5, 0, 0]
    assert counters["users_not_held_out"] == 5


def test_cold_users_and_items_are_counted(tmp_path: Path, sail: SparkSession) -> None:
    """Before time 100 all trains; the user `new` and the item `fresh` come after."""
    lines = [f"u{n % 3}\ti{n % 4}\t{n}\t1" for n in range(100)]
    lines += ["new\ti0\t100\t1", "u0\tfresh\t101\t1", "u0\ti0\t102\t1", "u1\ti1\t99\t2"]
    log = str(written(tmp_path / "log", lines))
    dates = {"split": "time", "valid_from": "1970-01-01T00:01:40Z"}
    shards = {**dates, "test_from": "1970-01-01T00:01:40Z"}
    counters = build(sail, tree(tmp_path, log, shards=shards)).artifact("shards").counters
    named = {n: c for n, c in counters.items() if n not in (*NAMES, "events_in", "dropped")}
    assert named == {
        "cold_users_test": 1,
        "users_without_train": 1,
        "users_not_held_out": 2,
        "cold_items_test": 1,
        "items_without_train": 1,
        "repeats_valid": 0,
        "repeats_test": 1,
        "shared_held_out": 0,
    }


def test_a_log_without_times_or_held_out_events(tmp_path: Path, sail: SparkSession) -> None:
    path = tmp_path / "log"
    path.write_text("user_id\titem_id\nu\ti\nu\tj\nv\ti\n")
    config = tree(
        tmp_path,
        str(path),
        events={"time": "", "weight": ""},
        shards={"split": "random", "valid": 0, "test": 0},
    )
    run = build(sail, config)
    assert {r["time"] for r in rows(run, "shards", "train")} == {None}
    assert run.artifact("shards").counters["train"] == 3
    assert len(run.artifact("shards").files("test")) == 4


def test_events_that_the_thresholds_removed_are_dropped(tmp_path: Path, sail: SparkSession) -> None:
    log = str(written(tmp_path / "log", ["u\ti\t1\t1", "u\tj\t2\t1", "v\ti\t3\t1"]))
    run = build(sail, tree(tmp_path, log, vocab={"min_user_count": 2}))
    counters = run.artifact("shards").counters
    assert (counters["events_in"], counters["dropped"], counters["train"]) == (3, 1, 2)
