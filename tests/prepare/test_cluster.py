"""The same stages on clusters, whose nodes die: the artifacts of the embedded engine.

Four engines beside it: local Apache Spark, `local-cluster` with an environment as an archive, a
standalone master with two workers and the package as a wheel, and a Spark Connect server.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from embedmill.pipeline.config import parse, to_toml
from embedmill.pipeline.prepare.engine.connection import open_session
from embedmill.pipeline.store.run import Run
from embedmill.schemas.events import RULES
from tests.support.faults import calls
from tests.support.logs import last_tree, random_tree, signals_tree, time_tree
from tests.support.prepare_builds import DATA_STAGES, Tree, build, same
from tests.support.spark_clusters import REPOSITORY, Order, connect_server, standalone, submit
from tests.support.submitted import PIECE
from tests.support.sweeps import sweep

TREES = {"last": last_tree, "time": time_tree, "random": random_tree, "signals": signals_tree}
STAGES = {name: DATA_STAGES[:1] if name == "signals" else DATA_STAGES for name in TREES}
# What each engine builds; a whole line takes it half a minute.
BUILT = {
    "local": ("random", "signals"),
    "local_cluster": ("time", "signals"),
    "two_workers": ("signals",),
    "two_workers_line": ("last",),
    "connected": ("last", "signals"),
}
# Some of it with tasks that go wrong: engine and tree → faults.
FAULTS: dict[tuple[str, str], dict[str, str]] = {
    ("local_cluster", "time"): {
        "events._parse": "fail early",
        "events._merge": "fail",
        "id_counts._partials": "fail early",
        "id_counts._sum": "fail early",
        "row_numbers._rank": "fail",
        "row_numbers._write": "fail",
        "shards._write": "fail early",
        "session_pairs._find": "fail early",
        "session_pairs._write": "fail",
    },
    ("two_workers_line", "last"): {
        "events._parse": "slow",
        "events._merge": "kill",
        "id_counts._sum": "kill early",
        "row_numbers._write": "slow",
        "shards._write": "kill",
    },
    ("two_workers", "signals"): {"events._merge": "kill worker"},
}
# The stage of most rules on one cluster in every run of the tests; all else in the exhaustive ones.
ALWAYS = [("two_workers", "signals")]
CASES = [(engine, name) for engine, names in BUILT.items() for name in names]
SPECULATION = {
    "spark.speculation": "true",
    "spark.speculation.interval": "200ms",
    "spark.speculation.quantile": "0.3",
    "spark.speculation.minTaskRuntime": "1s",
    "spark.speculation.task.duration.threshold": "2s",
}

pytestmark = pytest.mark.spark


@dataclass(frozen=True)
class World:
    """Logs, and a folder of runs over them for each engine."""

    folder: Path
    sail: SparkSession

    def tree(self, name: str, engine: str) -> Tree:
        return TREES[name](self.folder / "logs" / name, self.folder / engine / name)

    def run(self, name: str, engine: str) -> Run:
        return Run(parse(self.tree(name, engine)))

    def embedded(self, name: str) -> Run:
        """The run of the embedded engine, built at first use: all others are compared with it."""
        run = build(self.sail, self.tree(name, "sail"), STAGES[name][-1])
        if name == "signals":
            # Its min_merged_weight is above 0, and so drops what `nonpositive` would.
            dropped = run.artifact("events").counters
            assert all(dropped[rule] for rule in RULES if rule != "nonpositive")
        else:
            assert run.artifact("shards").counters["test"]
        return run

    def order(self, name: str, engine: str) -> Order:
        folder = self.folder / engine / name
        folder.mkdir(parents=True, exist_ok=True)
        toml = folder / "run.toml"
        toml.write_text(to_toml(parse(self.tree(name, engine))), encoding="utf-8")
        return Order(toml, folder, STAGES[name], FAULTS.get((engine, name), {}))

    def tasks(self, name: str, engine: str) -> list[dict[str, str]]:
        return calls(self.folder / engine / name / "tasks")

    def said(self, name: str, engine: str) -> Any:
        return json.loads((self.folder / engine / name / "done.json").read_text())


@pytest.fixture(scope="module", autouse=True)
def small_pieces() -> Iterator[None]:
    """As on the clusters: small logs are many tasks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("embedmill.pipeline.prepare.engine.frames.TASK_BYTES", PIECE)
        patch.setattr("embedmill.pipeline.prepare.readers.read_plan.TASK_BYTES", PIECE)
        yield


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, sail: SparkSession) -> World:
    return World(tmp_path_factory.mktemp("cluster"), sail)


@pytest.fixture(scope="module")
def local(world: World, spark: SparkSession) -> None:
    for name in BUILT["local"]:
        build(spark, world.tree(name, "local"), STAGES[name][-1])


@pytest.fixture(scope="module")
def local_cluster(world: World, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Executors with an archive of their own, where tasks fail at their first attempt too."""
    folder = tmp_path_factory.mktemp("local-cluster")
    archive = folder / "environment.tar.gz"
    pack = [
        sys.executable,
        str(REPOSITORY / "docker" / "pack_environment.py"),
        "--level",
        "0",
        str(archive),
    ]
    source = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    subprocess.run(pack, env=source, check=True, capture_output=True)
    orders = [world.order(name, "local_cluster") for name in BUILT["local_cluster"]]
    options = ("--archives", f"{archive}#environment", "--py-files", str(folder / "faults.py"))
    submit(
        "local-cluster[2,1,2048]", orders, folder, *options, source=str(REPOSITORY),
        PYSPARK_PYTHON="./environment/bin/python",
    )  # fmt: skip


@pytest.fixture(scope="module")
def two_workers(world: World, tmp_path_factory: pytest.TempPathFactory, wheel: Path) -> None:
    """Executors with the wheel, one of which dies with its node."""
    submit_to_two_workers("two_workers", world, tmp_path_factory.mktemp("standalone"), wheel)


@pytest.fixture(scope="module")
def two_workers_line(world: World, tmp_path_factory: pytest.TempPathFactory, wheel: Path) -> None:
    """Executors with the wheel; some are killed, some tasks are slow."""
    submit_to_two_workers("two_workers_line", world, tmp_path_factory.mktemp("standalone"), wheel)


def submit_to_two_workers(engine: str, world: World, folder: Path, wheel: Path) -> None:
    """Build the trees of an engine on a standalone master with two workers."""
    orders = [world.order(name, engine) for name in BUILT[engine]]
    files = ("--py-files", f"{wheel},{folder / 'faults.py'}")
    with standalone(folder) as master:
        submit(master, orders, folder, *files, settings=SPECULATION)


@pytest.fixture(scope="module")
def connected(world: World, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("connect")
    with connect_server(folder, REPOSITORY) as url, open_session(url) as session:
        for name in BUILT["connected"]:
            build(session, world.tree(name, "connected"), STAGES[name][-1])


@pytest.mark.parametrize(("engine", "name"), sweep(CASES, always=ALWAYS))
def test_every_engine_gives_the_same_artifacts(
    world: World, name: str, engine: str, request: pytest.FixtureRequest
) -> None:
    request.getfixturevalue(engine)
    alike(world, name, engine)


def alike(world: World, name: str, engine: str) -> None:
    """Assert that a run has the artifacts of the embedded engine."""
    one, two = world.embedded(name), world.run(name, engine)
    for stage in STAGES[name]:
        same(one, two, stage)
        assert list(two.artifact(stage).verify()) == []


@pytest.mark.parametrize(("engine", "name"), sweep([*FAULTS], always=ALWAYS))
def test_what_goes_wrong_in_tasks_changes_no_row(
    world: World, engine: str, name: str, request: pytest.FixtureRequest
) -> None:
    request.getfixturevalue(engine)
    assert world.said(name, engine)["codes"] == [0] * len(STAGES[name])
    alike(world, name, engine)
    tasks = world.tasks(name, engine)
    for function in FAULTS[engine, name]:
        those = [one for one in tasks if one["function"] == function]
        struck = {one["partition"] for one in those if not one["ended"]}
        assert struck, f"{function} did not go wrong"
        assert struck <= {one["partition"] for one in those if one["ended"]}, function


def test_tasks_use_the_wheel_that_was_shipped(world: World, wheel: Path, two_workers: None) -> None:
    found = {one["package"] for one in world.tasks("signals", "two_workers")}
    assert found
    assert all(f"/{wheel.stem}.zip/embedmill/pipeline/" in one for one in found)
    assert world.said("signals", "two_workers")["version"] == "shipped"


@pytest.mark.exhaustive
def test_tasks_use_the_environment_that_was_shipped(world: World, local_cluster: None) -> None:
    found = {one["package"] for one in world.tasks("time", "local_cluster")}
    assert found
    assert all("/environment/lib/" in one for one in found)
