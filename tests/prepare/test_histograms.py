"""Small tables of large logs: exact where they promise to be, bounded everywhere."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st
from pyspark.sql import SparkSession

from embedmill.pipeline.prepare import histograms
from embedmill.schemas.vocab import Histogram
from tests.support.prepare_builds import build, tree, written

DAY = 86_400 * 10**6


def test_counts_keep_their_leading_bits() -> None:
    counts = np.array([1, 2, 255, 256, 257, 511, 513, 1023, 1024, 10**6])
    found = histograms.bin_lower_bounds(histograms.bin_indices(counts))
    assert found.tolist() == [1, 2, 255, 256, 256, 510, 512, 1020, 1024, 999_424]


@given(st.lists(st.integers(1, 2**40), min_size=1))
def test_a_bin_is_narrow(counts: list[int]) -> None:
    bins = histograms.bin_indices(np.array(counts))
    found = histograms.bin_lower_bounds(bins)
    assert (found <= counts).all()
    assert ((np.array(counts) - found) * 128 <= found).all()
    assert (histograms.bin_indices(found) == bins).all()
    assert bins.max() <= 4352


@given(st.lists(st.integers(1, 10**6), min_size=1, max_size=60), st.integers(1, 5))
def test_the_sum_of_tasks_does_not_depend_on_them(counts: list[int], tasks: int) -> None:
    ids = [f"id.{n}" for n in range(len(counts))]
    total: Counter[str] = Counter()
    for task in range(tasks):
        own = slice(task, None, tasks)
        if ids[own]:
            columns = pa.chunked_array([ids[own]]), pa.chunked_array([counts[own]])
            total.update(histograms.id_counters("user", *columns))
    found = histograms.id_histogram(total, "user")
    assert sum(n for _, n, _ in found.counts) == len(counts)
    assert sum(events for *_, events in found.counts) == sum(counts)
    first = sorted(zip(counts, ids, strict=True), key=lambda one: (-one[0], one[1]))
    assert found.heaviest == [(i, n) for n, i in first[: histograms.TOP_IDS]]
    assert histograms.id_histogram(total, "item") == Histogram(counts=[], heaviest=[])


def test_days_are_of_utc_and_may_lie_before_1970() -> None:
    time = pa.chunked_array([[-1, 0, DAY - 1, DAY, None]], pa.int64())
    assert histograms.day_counters(time) == {"day.-1": 1, "day.0": 2, "day.1": 1}
    assert histograms.day_histogram(histograms.day_counters(time)) == [
        ("1969-12-31", 1), ("1970-01-01", 2), ("1970-01-02", 1)
    ]  # fmt: skip
    # Far apart: nothing is laid out for the days between.
    time = pa.chunked_array([[0, 300_000 * DAY, 300_000 * DAY]], pa.int64())
    assert histograms.day_counters(time) == {"day.0": 1, "day.300000": 2}
    assert histograms.day_counters(pa.chunked_array([[None]], pa.int64())) == {}


def test_stages_store_days_and_counts_of_all_ids(sail: SparkSession, tmp_path: Path) -> None:
    lines = [f"{user}\t{item}\t{86_400 * day}\t1" for user, item, day in (
        ("a", "x", 0), ("a", "y", 0), ("a", "z", 2), ("b", "x", 2), ("c", "x", 2),
    )]  # fmt: skip
    log = written(tmp_path / "log.tsv", lines)
    run = build(sail, tree(tmp_path / "runs", str(log), vocab={"min_user_count": 2}), "vocab")
    assert run.artifact("events").read_json("days.json") == [["1970-01-01", 2], ["1970-01-03", 3]]
    assert run.artifact("vocab").read_json("counts.json") == {
        # b and c have too few events to get a row, and are told of all the same.
        "users": {"counts": [[1, 2, 2], [3, 1, 3]], "heaviest": [["a", 3], ["b", 1], ["c", 1]]},
        "items": {"counts": [[1, 2, 2], [3, 1, 3]], "heaviest": [["x", 3], ["y", 1], ["z", 1]]},
    }


def test_a_log_without_times_has_no_days(sail: SparkSession, tmp_path: Path) -> None:
    log = written(tmp_path / "log.tsv", ["a\tx\t1\t1"])
    config = tree(
        tmp_path / "runs",
        str(log),
        events={"time": ""},
        shards={"split": "random", "valid": 0.1, "test": 0.1},
    )
    assert not build(sail, config, "events").artifact("events").has("days.json")
