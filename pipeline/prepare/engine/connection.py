"""Sessions of the DataFrame engines: Sail in this process, Apache Spark, or a Spark Connect URL."""

from __future__ import annotations

import atexit
import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, cast
from urllib.parse import urlsplit

from pyspark import SparkFiles
from pyspark.sql import SparkSession

from embedmill.pipeline.errors import ConfigError, MachineError
from embedmill.pipeline.prepare.engine.frames import last_line, wait_for_tasks

__all__ = ["open_session", "shuffled"]

_CONNECT_PORT = 15002
_HASHED = "64m"  # a join's smaller side in one task, up to which it is hashed and none is sorted


@contextmanager
def open_session(engine: str, root: str = "") -> Iterator[SparkSession]:
    """A session on the engine; under spark-submit, the one that was submitted.

    Args:
        engine: "sail", "spark" or a Spark Connect URL, as `run.engine`.
        root: where artifacts go; memory:// lives in one process and needs Sail.

    Raises:
        ConfigError: `root` is in memory and the tasks would run in other processes.
        MachineError: the engine does not start.
    """
    submitted = "PYSPARK_GATEWAY_PORT" in os.environ
    if root.startswith("memory:") and (submitted or engine != "sail"):
        raise ConfigError(
            "run.root: memory:// lives in one process, tasks of Apache Spark run in others",
            todo="Use run.engine = 'sail' or a root that all processes see",
        )
    try:
        if submitted:
            opened = _submitted()
        elif engine == "sail":
            opened = _sail()
        else:
            opened = _spark() if engine == "spark" else _server(engine)
        with opened as session:
            yield session
    except Exception as error:
        stop = _interrupt_behind(error)
        if stop is None:
            raise
        raise stop from None


def shuffled(session: SparkSession) -> Callable[[], dict[str, float]]:
    """A gauge of the bytes that tasks have written for others since now: `shuffle_bytes`.

    Apache Spark on this machine's JVM tells; the embedded engine and Spark Connect do not, and
    nothing is said.
    """
    before = _shuffle_bytes(session)

    def since() -> dict[str, float]:
        return {} if before is None else {"shuffle_bytes": (_shuffle_bytes(session) or 0) - before}

    return since


def _shuffle_bytes(session: SparkSession) -> int | None:
    """What all stages of the application have written for a shuffle, or None where none tells.

    The one figure that the DataFrame API does not have: Spark's own store of its user interface
    has it, whether or not that is served.
    """
    context: Any = getattr(session, "_sc", None)
    if context is None:
        return None
    spark, gateway = context._jsc.sc(), context._gateway
    nothing, every = gateway.new_array(gateway.jvm.double, 0), gateway.jvm.java.util.ArrayList()
    spark.listenerBus().waitUntilEmpty()
    stages = spark.statusStore().stageList(every, False, False, nothing, every)
    return sum(int(stages.apply(number).shuffleWriteBytes()) for number in range(stages.size()))


@contextmanager
def _sail() -> Iterator[SparkSession]:
    os.environ.setdefault("RUST_LOG", "error")  # read once, when the first server starts
    from pysail.spark import SparkConnectServer

    server = SparkConnectServer("127.0.0.1", 0)
    server.start(background=True)
    try:
        _, port = server.listening_address
        with _called(f"sc://127.0.0.1:{port}", patient=False) as session:
            yield session
    finally:
        server.stop()
        # After an error tasks may still run; Python aborts when it ends below such threads.
        wait_for_tasks()


@contextmanager
def _server(url: str) -> Iterator[SparkSession]:
    with _called(url) as session:
        _measure(session)
        yield session


@contextmanager
def _called(url: str, *, patient: bool = True) -> Iterator[SparkSession]:
    """A session of a server; a patient one calls again, for minutes, when it does not answer."""
    _reach(url)
    # Not above: this module is imported by every task, where gRPC may be missing.
    from pyspark.sql.connect.session import SparkSession as ConnectSession

    try:
        session = ConnectSession.builder.remote(url).create()
        if not patient:
            # Sail stops at Ctrl-C by itself. To ask it again would keep the process for minutes.
            session.client.set_retry_policies([])
        session.conf.set("spark.sql.session.timeZone", "UTC")
    except Exception as error:
        raise MachineError(f"no Spark Connect server answers: {last_line(error)}", where=url) from (
            error
        )
    try:
        yield cast(SparkSession, session)
    finally:
        with suppress(Exception):  # the server may be gone, and the work is done or has failed
            session.stop()


def _reach(url: str) -> None:
    """Raise MachineError when nobody listens: the client would try again for ten minutes."""
    parts = urlsplit(url.split(";")[0])
    try:
        address = (parts.hostname or "localhost", parts.port or _CONNECT_PORT)
        socket.create_connection(address, timeout=10).close()
    except (OSError, ValueError) as error:
        raise MachineError(
            f"no Spark Connect server answers: {error}",
            where=url,
            todo="Start it, or use run.engine = 'sail'",
        ) from None


@contextmanager
def _submitted() -> Iterator[SparkSession]:
    try:
        session = SparkSession.builder.getOrCreate()
    except Exception as error:
        raise MachineError(
            f"Apache Spark does not start: {_cause(error)}",
            where="spark-submit",
            todo="See the lines above, and what spark-submit was told",
        ) from error
    _ship_wheels(session)
    _measure(session)
    yield session


def _ship_wheels(session: SparkSession) -> None:
    """Put wheels of --py-files on the path of tasks: PySpark does so for .zip and .egg alone."""
    context = session.sparkContext
    for url in context.getConf().get("spark.submit.pyFiles", "").split(","):
        name = url.rpartition("/")[2]
        package = f"{name.removesuffix('.whl')}.zip"
        if not name.endswith(".whl") or any(f.endswith(f"/{package}") for f in context.listFiles):
            continue  # no wheel, or shipped by the stage before
        folder = tempfile.mkdtemp(prefix="embedmill-")  # executors fetch it from there, if late
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        context.addPyFile(shutil.copy(SparkFiles.get(name), f"{folder}/{package}"))


@contextmanager
def _spark() -> Iterator[SparkSession]:
    given = SparkSession.getActiveSession()
    if given is not None:
        before = _measure(given)
        try:
            yield given
        finally:
            for key, value in before.items():
                given.conf.unset(key) if value is None else given.conf.set(key, value)
        return
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
    _measure(session)
    try:
        yield session
    finally:
        session.stop()


def _measure(session: SparkSession) -> dict[str, str | None]:
    """Let Apache Spark choose joins by sizes it has measured; returns the settings before.

    It takes the rows that tasks read for as small as the list of files they are read from. Going
    by that it broadcasts the log itself, by way of the driver. What it sees at every shuffle
    while it runs is true.
    """
    guessed = "spark.sql.autoBroadcastJoinThreshold"
    seen = "spark.sql.adaptive.autoBroadcastJoinThreshold"
    hashed = "spark.sql.adaptive.maxShuffledHashJoinLocalMapThreshold"
    before = {key: session.conf.get(key, None) for key in (guessed, seen, hashed)}
    session.conf.set(seen, before[seen] or before[guessed] or "10m")
    session.conf.set(guessed, "-1")
    session.conf.set(hashed, _HASHED)
    return before


def _interrupt_behind(error: BaseException | None) -> KeyboardInterrupt | None:
    """The Ctrl-C that an error came up in the wake of, or None.

    Spark Connect's client asks the server to stop the query, and fails where it is gone.
    """
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error


def _cause(error: Exception) -> str:
    """What the JVM says, in front of its stack; Python's last line where it was none."""
    java = getattr(error, "java_exception", None)
    return last_line(error) if java is None else str(java.toString())
