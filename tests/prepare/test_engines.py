"""Engines that are there, in memory, by spark-submit, and where the machine refuses."""

from __future__ import annotations

import os
import random
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from embedmill.pipeline.config import parse, to_toml
from embedmill.pipeline.errors import ConfigError, EmbedmillError, MachineError
from embedmill.pipeline.prepare.engine import frames
from embedmill.pipeline.prepare.engine.connection import open_session
from embedmill.pipeline.store.run import open_run
from tests.support.logs import last_tree
from tests.support.prepare_builds import DATA_STAGES, Tree, build, tree, written

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.mark.spark
def test_a_spark_that_runs_already_is_used_and_left_running(spark: SparkSession) -> None:
    with open_session("spark") as session:
        assert session is spark
    assert spark.range(3).count() == 3


@pytest.mark.spark
@pytest.mark.parametrize("name", ["embedmill", "pyarrow"])
def test_tasks_of_other_packages(
    tmp_path: Path, spark: SparkSession, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """They would write other bytes than a second attempt elsewhere."""
    monkeypatch.setattr(frames, "_VERSIONS", {**frames._VERSIONS, name: "0.0.7"})
    error = failure(spark, tree(tmp_path, str(written(tmp_path / "log", ["u\ti\t1\t1"]))))
    assert isinstance(error, MachineError)
    assert re.search(rf"a task has {name} \S+, the driver 0\.0\.7\. Give all nodes", str(error))


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


def test_what_an_error_says_in_a_line() -> None:
    call = '<_InactiveRpcError of RPC that terminated with:\n\tstatus = X\n\tdetails = "gone"\n>'
    assert frames.last_line(RuntimeError(call)) == "gone"
    assert frames.last_line(RuntimeError("a stack\n  the cause \n\n")) == "the cause"
    assert frames.last_line(RuntimeError()) == "RuntimeError"


def test_ctrl_c_while_the_server_is_gone() -> None:
    """The call that cancels the query has no answer either, and is not repeated for minutes.

    In a process of its own: at Ctrl-C every Sail of a process stops.
    """
    code = (
        "import os, signal, threading\n"
        "from pysail.spark import SparkConnectServer\n"
        "from embedmill.pipeline.prepare.engine.connection import open_session\n"
        "from embedmill.pipeline.prepare.engine.frames import collect\n"
        "server = SparkConnectServer('127.0.0.1', 0)\n"
        "server.start(background=True)\n"
        "try:\n"
        "    with open_session(f'sc://127.0.0.1:{server.listening_address[1]}') as session:\n"
        "        server.stop()\n"
        "        threading.Timer(1, os.kill, (os.getpid(), signal.SIGINT)).start()\n"
        "        collect(session.range(3))\n"
        "except KeyboardInterrupt:\n"
        "    print('interrupted')\n"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert answer.stdout == "interrupted\n", answer


def test_ctrl_c_while_the_server_hangs(tmp_path: Path) -> None:
    """The call that cancels the query has a deadline; the server has stopped, not ended.

    In a process of its own, for Ctrl-C.
    """
    code = (
        "import os, signal, threading, time\n"
        "from pathlib import Path\n"
        "from embedmill.pipeline.prepare.engine import connect_client\n"
        "from embedmill.pipeline.prepare.engine.connection import open_session\n"
        "from embedmill.pipeline.prepare.engine.frames import collect\n"
        "from tests.storm.servers import sail_server\n"
        "connect_client._DEADLINES |= {'Interrupt': 1.0, 'ReleaseSession': 1.0}\n"
        "with sail_server(Path.cwd()) as sail:\n"
        "    try:\n"
        "        with open_session(sail.url) as session:\n"
        "            print(collect(session.range(3)).num_rows)\n"
        "            sail.pause()\n"
        "            threading.Timer(1, os.kill, (os.getpid(), signal.SIGINT)).start()\n"
        "            began = time.monotonic()\n"
        "            collect(session.range(3))\n"
        "    except KeyboardInterrupt:\n"
        "        print('interrupted', time.monotonic() - began < 10)\n"
    )
    variables = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False,
        env=variables, cwd=tmp_path,
    )  # fmt: skip
    assert answer.stdout == "3\ninterrupted True\n", answer


def test_no_java() -> None:
    """In a process of its own: a JVM that runs here already would be used."""
    code = (
        "from embedmill.pipeline.prepare.engine.connection import open_session\n"
        "from embedmill.pipeline.errors import MachineError\n"
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


@pytest.mark.exhaustive
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
        "import embedmill.jobs.all\n"
        "import pyspark.sql.connect.session\n"
    )
    environment = {k: v for k, v in os.environ.items() if k != "GRPC_ENABLE_FORK_SUPPORT"}
    answer = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert answer.stdout.split() == ["0"]
