"""Estimates of all stages: from given sizes, for a cluster, and corrected by finished runs."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from embedmill.pipeline.errors import ConfigError
from embedmill.pipeline.estimates import GivenLine, LineSizes, Machines, estimate_line
from embedmill.pipeline.estimates import line_estimate as lines
from embedmill.pipeline.estimates.line_sizes import read_profile
from embedmill.pipeline.store.run import Run
from embedmill.schemas.stages import STAGES
from tests.support.runs import clusters
from tests.support.worlds import config

GIVEN = GivenLine(rows=100_000_000, users=10_000_000, items=1_000_000)


def run(**sections: Any) -> Run:
    made = {"train": {"objective": "softmax"}, "run": {"partitions": 1024}, **sections}
    return Run(config("/nowhere", "log.tsv", **made))


def test_machines_of_a_text() -> None:
    assert Machines.of("64x8cpu32g", 0.05) == Machines(64, 8, 32 << 30, 0.05)
    assert Machines.of("64x8cpu32g", 0.05).cost(3600) == pytest.approx(64 * 8 * 0.05)
    assert Machines.of("").nodes == 1
    for text in ("8cpu", "0x8cpu32g", "ax8cpu32g"):
        with pytest.raises(ConfigError, match="is no cluster"):
            Machines.of(text)


def test_sizes_by_split() -> None:
    last = LineSizes.of(run(), GIVEN)
    assert (last.train, last.valid, last.test) == (80_000_000, 10_000_000, 10_000_000)
    split = {"split": "random", "valid": 0.1, "test": 0.2}
    random = LineSizes.of(run(shards=split), GIVEN)
    assert (random.train, random.valid, random.test) == (70_000_000, 10_000_000, 20_000_000)
    with pytest.raises(ConfigError, match="sizes are not known"):
        LineSizes.of(run(), GivenLine(users=3, items=2))


def test_sizes_of_finished_stages_and_of_a_profile(tmp_path: Path) -> None:
    stored = clusters(users=40, items=30).store(tmp_path)
    sizes, shards = LineSizes.of(stored, GivenLine()), stored.artifact("shards").counters
    assert (sizes.users, sizes.items, sizes.train) == (40, 30, shards["train"])
    counters = {s: stored.artifact(s).counters for s in ("events", "vocab", "shards")}
    (tmp_path / "profile.json").write_text(json.dumps({"counters": counters}))
    given = GivenLine(counters=read_profile(tmp_path / "profile.json"))
    profiled = LineSizes.of(run(), given)
    assert dataclasses.replace(profiled, raw_bytes=0) == dataclasses.replace(sizes, raw_bytes=0)
    with pytest.raises(ConfigError, match="is no profile"):
        read_profile(tmp_path / "missing.json")


def test_all_stages_and_a_cluster() -> None:
    one = estimate_line(run(), GIVEN, Machines(1, 2, 24 << 30), seconds=0)
    many = estimate_line(run(), GIVEN, Machines(16, 8, 32 << 30, price=0.1), seconds=0)
    assert list(one.stages) == list(STAGES)
    flat = one.as_json()
    for stage, found in one.stages.items():
        assert flat[f"stages.{stage}.seconds"] == pytest.approx(found.seconds, abs=1e-3)
        assert found.memory > 0
        assert many.stages[stage].seconds <= found.seconds
        if stage != "train":  # whose workers wait for the network between nodes
            assert many.stages[stage].core_hours == pytest.approx(found.core_hours)
    assert many.stages["shards"].seconds < one.stages["shards"].seconds / 10
    assert flat["cost"] == 0
    expected = sum(16 * 8 * 0.1 * s.seconds / 3600 for s in many.stages.values())
    assert many.as_json()["cost"] == pytest.approx(expected, abs=0.01)
    table = many.lines()
    assert [line[0] for line in table] == ["stage", *STAGES, "all"]
    assert {len(line) for line in table} == {9}


def test_twice_the_rows_take_about_twice_the_time() -> None:
    sizes = [dataclasses.replace(GIVEN, rows=rows) for rows in (10**8, 2 * 10**8)]
    once, twice = (estimate_line(run(), g, Machines(1, 2, 24 << 30), seconds=0) for g in sizes)
    for stage, power in (("events", 1.1), ("shards", 1.2)):
        ratio = twice.stages[stage].seconds / once.stages[stage].seconds
        assert ratio == pytest.approx(2**power, rel=0.02)


def test_corrections_by_hand() -> None:
    def point(expected: float, seconds: float) -> lines._Point:
        return lines._Point(expected, seconds, memory=1.0)

    assert lines._machine([]) == 1
    assert lines._machine([[point(1, 4)], [point(3, 4)]]) == 2
    assert lines._correction([], 2) == 2
    assert lines._correction([point(10, 20)], 2) == pytest.approx(2)
    # Of five seconds the half is believed: the square root of twice as long.
    assert lines._correction([point(2.5, 5)], 1) == pytest.approx(2**0.5)
    assert lines._correction([point(1e6, 2e6)], 1) == pytest.approx(2, rel=1e-4)
    assert lines._correction([point(1, 2), point(3, 3)], 1) == pytest.approx(2 ** (0.4 * 0.5))


def test_finished_runs_correct_the_estimate(tmp_path: Path) -> None:
    stored = clusters(users=40, items=30).store(tmp_path)
    given, machines = GivenLine(rows=10**6, users=10**4, items=10**3), Machines(1, 2, 8 << 30)
    plain = estimate_line(run(), given, machines, seconds=0)
    measured = estimate_line(run(), given, machines, measured=[stored], seconds=0)
    points = {stage: lines._points(stage, [_given(stored)]) for stage in STAGES}
    assert [stage for stage, found in points.items() if found] == list(STAGES)[:4]
    speed = lines._machine(found for stage, found in points.items() if stage != "train")
    for stage in STAGES:  # those that were not run are as slow as the others together
        ratio = measured.stages[stage].seconds / plain.stages[stage].seconds
        expected = lines._correction(points[stage], 1.0 if stage == "train" else speed)
        assert ratio == pytest.approx(expected, rel=1e-6)
    peak = measured.stages["shards"].memory / plain.stages["shards"].memory
    assert peak == pytest.approx(points["shards"][0].memory ** 0.5)


def _given(stored: Run) -> tuple[lines.Work, Run]:
    sizes = lines._given_of(LineSizes.of(stored, GivenLine()))
    return lines.work_of(stored, sizes, Machines.of(""), 0), stored
