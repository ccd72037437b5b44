"""One code on two engines, in memory, by spark-submit, and where the machine refuses."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from building import DATA_STAGES, Tree, build, hashes, rows, tree, written
from pyspark.sql import SparkSession

from pipeline.config import parse, to_toml
from pipeline.contracts import DROPS
from pipeline.errors import ConfigError, EmbedmillError, MachineError
from pipeline.prepare.engine import open_session
from pipeline.run import Run, open_run

REPOSITORY = Path(__file__).resolve().parents[2]


def messy(folder: Path) -> list[str]:
    """Two logs with repeats, ties, ids that need care and bad lines."""
    draw = random.Random(11)
    users = [f"u{n}" for n in range(40)] + ["ünï", "漢字", "a b", "🎬", 'q"']
    lines = [
        f"{draw.choice(users)}\ti{int(draw.random() ** 2 * 30)}\t{draw.randrange(400)}"
        f"\t{draw.choice(['1', '2.5', '-0.0', '1e3'])}"
        for _ in range(900)
    ]
    lines += ["bad", "\ti\t1\t1", "u\ti\tnever\t1", "u\ti\t1\tnan", "u\ti\t-1\t1"]
    draw.shuffle(lines)
    one = written(folder / "a.tsv", lines[:500])
    two = written(folder / "b.tsv", lines[400:])
    return [str(one), str(two)]


def last_tree(folder: Path, root: Path | str) -> Tree:
    return tree(
        root,
        messy(folder),
        vocab={"min_user_count": 3, "min_item_count": 4},
        shards={"split": "last", "valid": 2, "test": 2},
        events={"max_rejects": 0.05},
    )


def time_tree(folder: Path, root: Path | str) -> Tree:
    """A Parquet log of numbers, without weights, merged by pair, cut by time; pairs too."""
    draw = random.Random(12)
    columns = {
        "user_id": [draw.randrange(30) for _ in range(600)],
        "item_id": [draw.randrange(50) for _ in range(600)],
        "time": [draw.randrange(10**9) for _ in range(600)],
    }
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), folder / "log.parquet", row_group_size=100)
    events = {"format": "parquet", "weight": "", "merge_by": "pair", "merge_weight": "count"}
    pairs = {"window": 0, "window_minutes": 10**6, "max_session": 9, "subsample": 0.01}
    shards = {"split": "time", "valid": 0.1, "test": 0.2, "pairs": {**pairs, "with_valid": True}}
    return tree(root, str(folder / "log.parquet"), events=events, shards=shards)


def random_tree(folder: Path, root: Path | str) -> Tree:
    """A log without times: the hash that splits and orders its events is of nulls too."""
    events = {"time": "", "max_rejects": 0.05}
    shards = {"split": "random", "valid": 0.2, "test": 0.2}
    return tree(root, messy(folder), events=events, shards=shards)


def signals_tree(folder: Path, root: Path | str) -> Tree:
    """A log of text under every rule: condition, types, decay, bots, thresholds, a cap."""
    draw = random.Random(13)
    header = "user_id\titem_id\ttime\trating\tevent\tcountry"
    lines = [
        f"u{int(draw.random() ** 2 * 30)}\ti{draw.randrange(40)}\t{draw.randrange(10**6)}"
        f"\t{draw.choice(['1', '2.5', '-1', '1e3'])}\t{draw.choice(['view', 'buy', 'remove'])}"
        f"\t{draw.choice(['DE', 'AT', 'ü', ''])}"
        for _ in range(1500)
    ]
    folder.mkdir(parents=True, exist_ok=True)
    for name, part in {"a": lines[:900], "b": [*lines[700:], "u\ti\t1\t1\tshare\tDE"]}.items():
        (folder / name).write_text("\n".join([header, *part]), encoding="utf-8")
    signals = {
        "type": "event", "types": {"view": 1, "buy": 5, "remove": 0}, "min_weight": 0,
        "max_user_day": 4, "bots": "day", "half_life_days": 2.5, "min_merged_weight": 0.7,
        "max_user_events": 6, "keep": "sample",
    }  # fmt: skip
    events = {"filter": "country <> 'AT' and rating < 999", "merge_by": "pair",
              "merge_weight": "sum", "drop_repeats": True, "signals": signals}  # fmt: skip
    paths = [str(folder / "a"), str(folder / "b")]
    return tree(root, paths, events=events, train={"weight_power": 1})


@pytest.mark.spark
@pytest.mark.parametrize("make", [last_tree, time_tree, random_tree])
def test_sail_and_spark_give_the_same_artifacts(
    tmp_path: Path, sail: SparkSession, spark: SparkSession, make: Any
) -> None:
    one = build(sail, make(tmp_path / "logs", tmp_path / "sail"))
    two = build(spark, make(tmp_path / "logs", tmp_path / "spark"))
    for stage in DATA_STAGES:
        same(one, two, stage)
    assert one.artifact("shards").counters["test"] > 0


@pytest.mark.spark
def test_sail_and_spark_apply_the_same_rules(
    tmp_path: Path, sail: SparkSession, spark: SparkSession
) -> None:
    one = build(sail, signals_tree(tmp_path / "logs", tmp_path / "sail"), "events")
    two = build(spark, signals_tree(tmp_path / "logs", tmp_path / "spark"), "events")
    same(one, two, "events")
    counters = one.artifact("events").counters
    assert all(counters[name] for name in DROPS["events"])


def same(one: Run, two: Run, stage: str) -> None:
    """Assert that two runs have the same artifact."""
    ours, theirs = one.artifact(stage), two.artifact(stage)
    assert ours.counters == theirs.counters
    for folder in sorted({f.path.split("/")[0] for f in ours.manifest.files if f.rows}):
        assert rows(one, stage, folder) == rows(two, stage, folder)
    assert hashes(one, stage) == hashes(two, stage)
    assert ours.manifest.content == theirs.manifest.content


@pytest.mark.spark
def test_a_spark_that_runs_already_is_used_and_left_running(spark: SparkSession) -> None:
    with open_session("spark") as session:
        assert session is spark
    assert spark.range(3).count() == 3


def test_a_root_in_memory(tmp_path: Path, sail: SparkSession) -> None:
    disk = build(sail, last_tree(tmp_path / "logs", tmp_path / "runs"))
    memory = build(sail, last_tree(tmp_path / "logs", f"memory://{tmp_path}"))
    for stage in DATA_STAGES:
        assert memory.artifact(stage).manifest.content == disk.artifact(stage).manifest.content
        assert list(memory.artifact(stage).verify()) == []


@pytest.mark.parametrize("engine", ["spark", "sc://localhost:1"])
def test_a_root_in_memory_needs_sail(engine: str) -> None:
    with (
        pytest.raises(ConfigError, match="memory:// lives in one process"),
        open_session(engine, "memory://x"),
    ):
        pass


def test_no_connect_server() -> None:
    with (
        pytest.raises(MachineError, match="no Spark Connect server answers"),
        open_session("sc://127.0.0.1:1"),
    ):
        pass


def test_no_java() -> None:
    """In a process of its own: a JVM that runs here already would be used."""
    code = (
        "from pipeline.prepare.engine import open_session\n"
        "from pipeline.errors import MachineError\n"
        "try:\n"
        "    with open_session('spark'): pass\n"
        "except MachineError as error:\n"
        "    print(error)\n"
    )
    environment = {**os.environ, "JAVA_HOME": "/nowhere"}
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False
    )
    assert "local Apache Spark does not start" in answer.stdout
    assert "Install Java 17 or 21 and set JAVA_HOME" in answer.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this repository, its version marked so that a test knows it was used."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in ("pipeline", "jobs", "schemas"):
        shutil.copytree(REPOSITORY / name, source / name)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, source / name)
    init = source / "pipeline" / "__init__.py"
    text = init.read_text()
    version = tomllib.loads((source / "pyproject.toml").read_text())["project"]["version"]
    assert f'"{version}"' in text
    init.write_text(text.replace(f'"{version}"', '"shipped"'))
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder)]
    subprocess.run([*command, str(source)], check=True, capture_output=True)
    return next(folder.glob("*.whl"))


@pytest.mark.spark
def test_jobs_by_spark_submit(tmp_path: Path, sail: SparkSession, wheel: Path) -> None:
    config = last_tree(tmp_path / "logs", tmp_path / "submitted")
    toml = tmp_path / "run.toml"
    toml.write_text(to_toml(parse(config)), encoding="utf-8")
    submit = str(Path(sys.executable).parent / "spark-submit")
    environment = {**os.environ, "PYSPARK_PYTHON": sys.executable}
    for stage in DATA_STAGES:
        job = tmp_path / "elsewhere" / f"{stage}.py"  # only the wheel knows our packages
        job.parent.mkdir(exist_ok=True)
        shutil.copy(REPOSITORY / "jobs" / f"{stage}.py", job)
        command = [submit, "--py-files", str(wheel), str(job), str(toml)]
        answer = subprocess.run(
            command, capture_output=True, text=True, env=environment, cwd=job.parent, check=False
        )
        assert answer.returncode == 0, answer.stderr
    submitted = open_run(str(tmp_path / "submitted" / "tiny"))
    embedded = build(sail, last_tree(tmp_path / "logs", tmp_path / "embedded"))
    for stage in DATA_STAGES:
        manifest = submitted.artifact(stage).manifest
        assert manifest.content == embedded.artifact(stage).manifest.content
        assert manifest.software["embedmill"] == "shipped"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    yield from _mounted(tmp_path / "small", "size=1m")


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    """A file system that cannot be written."""
    yield from _mounted(tmp_path / "sealed", "ro")


def _mounted(folder: Path, options: str) -> Iterator[Path]:
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no `mount` here")
    if answer.returncode:
        pytest.skip(f"file systems cannot be mounted here: {answer.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def failure(session: SparkSession, config: Tree) -> EmbedmillError:
    with pytest.raises(EmbedmillError) as caught:
        build(session, config)
    assert not Path(config["run"]["root"], "tiny", "shards", "manifest.json").exists()
    return caught.value


def big_log(path: Path) -> str:
    draw = random.Random(13)
    lines = [f"{draw.random()}\t{draw.random()}\t{n}\t1" for n in range(60_000)]
    return str(written(path, lines))


def test_a_full_disk(tmp_path: Path, sail: SparkSession, small_disk: Path) -> None:
    error = failure(sail, tree(small_disk, big_log(tmp_path / "log")))
    assert isinstance(error, MachineError)
    assert "the disk is full. Free some space and run the same command again" in str(error)
    assert not list(small_disk.rglob("*.part"))


def test_a_read_only_root(tmp_path: Path, sail: SparkSession, read_only: Path) -> None:
    error = failure(sail, tree(read_only, big_log(tmp_path / "log")))
    assert isinstance(error, MachineError)
    assert "the file system is read-only. Choose another run.root" in str(error)


def test_a_file_where_the_root_should_be(tmp_path: Path, sail: SparkSession) -> None:
    (tmp_path / "root").write_text("in the way")
    error = failure(sail, tree(tmp_path / "root", big_log(tmp_path / "log")))
    assert isinstance(error, MachineError)
    assert "a file stands where a folder should be" in str(error)


def test_grpc_has_no_handlers_of_forks() -> None:
    """They abort the child that is to become Spark's JVM; gRPC asks once, on its import."""
    code = (
        "import sys, os\n"
        "class Watch:\n"
        "    def find_spec(self, name, path, target=None):\n"
        "        if name == 'grpc':\n"
        "            print(os.environ.get('GRPC_ENABLE_FORK_SUPPORT'))\n"
        "sys.meta_path.insert(0, Watch())\n"
        "import jobs.all\n"
    )
    environment = {k: v for k, v in os.environ.items() if k != "GRPC_ENABLE_FORK_SUPPORT"}
    answer = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert answer.stdout.split() == ["0"]
