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


def test_twice_the_rows_take_at_most_about_twice_the_time() -> None:
    sizes = [dataclasses.replace(GIVEN, rows=rows) for rows in (10**8, 2 * 10**8)]
    once, twice = (estimate_line(run(), g, Machines(1, 2, 24 << 30), seconds=0) for g in sizes)
    for stage in ("events", "shards"):
        ratio = twice.stages[stage].seconds / once.stages[stage].seconds
        assert 1.8 < ratio <= 2


def test_lines_and_power_laws_by_hand() -> None:
    assert lines._line([(10, 30)], 20) == 60
    assert lines._line([(10, 30), (20, 50)], 40) == 90
    assert lines._line([(10, 50), (20, 50)], 40) == 75  # a slope of at least half the mean
    assert lines._power_law([(1, 2)], 9) == 18
    assert lines._power_law([(1, 2), (4, 4)], 16) == pytest.approx(8)
    assert lines._power_law([(1, 4), (4, 3)], 16) == 3


def test_finished_runs_correct_the_estimate(tmp_path: Path) -> None:
    stored = clusters(users=40, items=30).store(tmp_path)
    given, machines = GivenLine(rows=10**6, users=10**4, items=10**3), Machines(1, 2, 8 << 30)
    plain = estimate_line(run(), given, machines, seconds=0)
    measured = estimate_line(run(), given, machines, measured=[stored], seconds=0)
    manifest = stored.artifact("shards").manifest
    own = lines.COSTS["shards"](
        lines.work_of(stored, lines._given_of(LineSizes.of(stored, GivenLine())), machines, 0)
    )
    ratio = manifest.seconds / own.seconds(Machines.of("").cores)
    assert measured.stages["shards"].seconds == pytest.approx(
        plain.stages["shards"].seconds * ratio, rel=1e-6
    )
    assert measured.stages["report"] == plain.stages["report"]  # it has none
