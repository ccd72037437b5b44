"""Sessions of the DataFrame engines: Sail in this process, Apache Spark, or a Spark Connect URL."""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from pyspark.sql import SparkSession

from embedmill.pipeline.errors import ConfigError, MachineError
from embedmill.pipeline.extras import check_installed, naming_extras
from embedmill.pipeline.prepare.engine.frames import interrupt_behind, last_line
from embedmill.pipeline.prepare.engine.task_monitor import LOCAL_TASKS

__all__ = ["open_session", "shuffle_gauge"]

# Where the smaller side of a join has at most so many bytes a partition, Spark hashes it instead of
# sorting both sides.
_HASH_JOIN_BYTES = "64m"


@contextmanager
def open_session(engine: str, root: str = "") -> Iterator[SparkSession]:
    """A session on the engine, stopped at the end of the block.

    Under spark-submit, `engine` is ignored and the session is that of the submitted application.

    Args:
        engine: "sail", "spark" or a Spark Connect URL, as `run.engine`.
        root: where artifacts go; memory:// exists in one process only and needs Sail.

    Raises:
        ConfigError: `root` is in memory and the tasks would run in other processes.
        MachineError: the engine does not start, or no server answers.
    """
    submitted = "PYSPARK_GATEWAY_PORT" in os.environ
    if root.startswith("memory:") and (submitted or engine != "sail"):
        raise ConfigError(
            "run.root: memory:// lives in one process, tasks of Apache Spark run in others",
            todo="Use run.engine = 'sail' or a root that all processes can read and write",
        )
    try:
        if submitted:
            opened = _submitted_spark()
        elif engine == "sail":
            opened = _sail()
        else:
            opened = _local_spark() if engine == "spark" else _spark_connect(engine)
        with opened as session:
            yield session
    except Exception as error:
        interrupt = interrupt_behind(error)
        if interrupt is None:
            raise
        raise interrupt from None


def shuffle_gauge(session: SparkSession) -> Callable[[], dict[str, float]]:
    """A gauge `shuffle_bytes`: what tasks have written for shuffles since this call.

    It is measured where Apache Spark's driver runs in this machine's JVM. With the embedded
    engine and Spark Connect the gauge is empty.
    """
    before = _shuffle_bytes(session)

    def read() -> dict[str, float]:
        return {} if before is None else {"shuffle_bytes": (_shuffle_bytes(session) or 0) - before}

    return read


def _shuffle_bytes(session: SparkSession) -> int | None:
    """What all stages of the application have written for shuffles; None where that is unknown.

    The DataFrame API does not have this figure. It is in the status store of Spark's web
    interface, which is kept whether or not the interface is served.
    """
    context: Any = getattr(session, "_sc", None)
    if context is None:
        return None
    spark, gateway = context._jsc.sc(), context._gateway
    no_quantiles, any_status = (
        gateway.new_array(gateway.jvm.double, 0),
        gateway.jvm.java.util.ArrayList(),
    )
    spark.listenerBus().waitUntilEmpty()
    stages = spark.statusStore().stageList(any_status, False, False, no_quantiles, any_status)
    return sum(int(stages.apply(number).shuffleWriteBytes()) for number in range(stages.size()))


@contextmanager
def _sail() -> Iterator[SparkSession]:
    os.environ.setdefault("RUST_LOG", "error")  # read once, when the first server starts
    with naming_extras("run.engine"):
        from pysail.spark import SparkConnectServer

        from embedmill.pipeline.prepare.engine.connect_client import connect_session

    server = SparkConnectServer("127.0.0.1", 0)
    server.start(background=True)
    try:
        _, port = server.listening_address
        with connect_session(f"sc://127.0.0.1:{port}", retries=False) as session:
            yield session
    finally:
        server.stop()
        # After an error, tasks may still run in threads; Python aborts if it exits before them.
        LOCAL_TASKS.wait_until_idle()


@contextmanager
def _spark_connect(url: str) -> Iterator[SparkSession]:
    # gRPC may be missing where tasks import this module.
    from embedmill.pipeline.prepare.engine.connect_client import connect_session

    with connect_session(url) as session:
        _use_measured_sizes(session)
        yield session


@contextmanager
def _submitted_spark() -> Iterator[SparkSession]:
    try:
        session = SparkSession.builder.getOrCreate()
    except Exception as error:
        raise MachineError(
            f"Apache Spark does not start: {_jvm_message(error)}",
            where="spark-submit",
            todo="See Spark's log above, and check the options of spark-submit",
        ) from error
    _ship_wheels(session)
    _use_measured_sizes(session)
    yield session


def _ship_wheels(session: SparkSession) -> None:
    """Put wheels of --py-files on the path of tasks: PySpark does so only for .zip and .egg."""
    from pyspark import SparkFiles

    context = session.sparkContext
    for url in context.getConf().get("spark.submit.pyFiles", "").split(","):
        name = url.rpartition("/")[2]
        package = f"{name.removesuffix('.whl')}.zip"
        if not name.endswith(".whl") or any(f.endswith(f"/{package}") for f in context.listFiles):
            continue  # no wheel, or shipped by an earlier stage
        # Removed only at exit: executors that start later fetch the file from this folder.
        folder = tempfile.mkdtemp(prefix="embedmill-")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        context.addPyFile(shutil.copy(SparkFiles.get(name), f"{folder}/{package}"))


@contextmanager
def _local_spark() -> Iterator[SparkSession]:
    """The caller's active session, with its settings restored afterwards, or a new local one."""
    active = SparkSession.getActiveSession()
    if active is not None:
        before = _use_measured_sizes(active)
        try:
            yield active
        finally:
            for key, value in before.items():
                active.conf.unset(key) if value is None else active.conf.set(key, value)
        return
    check_installed("py4j", "run.engine = 'spark'")  # PySpark's client alone has none
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    settings = {
        "spark.sql.session.timeZone": "UTC",
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.driver.memory": "4g",
        "spark.driver.host": "127.0.0.1",
        "spark.sql.shuffle.partitions": str(4 * (os.cpu_count() or 1)),
        "spark.log.level": "ERROR",
    }
    builder = SparkSession.builder.master("local[*]").appName("embedmill")
    for key, value in settings.items():
        builder = builder.config(key, value)
    try:
        session = builder.getOrCreate()
    except Exception as error:
        raise MachineError(
            f"local Apache Spark does not start: {last_line(error)}",
            where="run.engine = 'spark'",
            todo="Install Java 17 or 21 and set JAVA_HOME, or use run.engine = 'sail'",
        ) from error
    _use_measured_sizes(session)
    try:
        yield session
    finally:
        session.stop()


def _use_measured_sizes(session: SparkSession) -> dict[str, str | None]:
    """Let Apache Spark choose joins by measured sizes only; returns the previous settings.

    Spark estimates that the rows which Python tasks read are as few bytes as the list of file
    names they start from. By that estimate it would broadcast the log itself through the driver.
    The sizes that adaptive execution measures at each shuffle are right.
    """
    by_estimate = "spark.sql.autoBroadcastJoinThreshold"
    by_measure = "spark.sql.adaptive.autoBroadcastJoinThreshold"
    hash_join = "spark.sql.adaptive.maxShuffledHashJoinLocalMapThreshold"
    before = {key: session.conf.get(key, None) for key in (by_estimate, by_measure, hash_join)}
    session.conf.set(by_measure, before[by_measure] or before[by_estimate] or "10m")
    session.conf.set(by_estimate, "-1")
    session.conf.set(hash_join, _HASH_JOIN_BYTES)
    return before


def _jvm_message(error: Exception) -> str:
    """The message of a JVM exception without its stack; of another error, the last line."""
    java = getattr(error, "java_exception", None)
    return last_line(error) if java is None else str(java.toString())
