"""The DataFrame engines: Sail in this process, local Apache Spark, or a Spark Connect URL.

Frames are built from strings only (`selectExpr`, column names), never from column objects:
these belong to one kind of session, and a process may hold both kinds.
"""

from __future__ import annotations

import atexit
import json
import os
import shutil
import socket
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, cast
from urllib.parse import urlsplit

import numpy as np
import pyarrow as pa
import pyspark
from pyspark import SparkFiles
from pyspark.sql import DataFrame, SparkSession

from pipeline import __version__
from pipeline.errors import ConfigError, EmbedmillError, MachineError, from_text
from pipeline.log import Progress
from schemas.manifest import FileEntry

__all__ = [
    "REPORT",
    "REPORT_ARROW",
    "Batches",
    "Done",
    "by_key",
    "collect",
    "gather",
    "mapped",
    "open_session",
    "report",
    "shuffled",
    "software",
    "spread",
    "tasks_for",
    "together",
    "turn",
]

# What a task hands back: a file that it wrote (path empty: none) and counts as JSON.
REPORT = "path string, rows long, bytes long, sha256 string, counts string"
REPORT_ARROW = pa.schema(
    [
        ("path", pa.string()),
        ("rows", pa.int64()),
        ("bytes", pa.int64()),
        ("sha256", pa.string()),
        ("counts", pa.string()),
    ]
)
_TASKS = threading.Condition()
_tasks_running = 0  # of Sail's, in threads of this process
_rows_read = 0  # by them, since this process began
_LOOK = 0.2  # seconds between two looks at it
_TASKS_END = 10.0  # seconds
_TURNS = threading.BoundedSemaphore(os.cpu_count() or 1)
_CONNECT_PORT = 15002
TASK_BYTES = 8 << 20  # of files, compressed, that a task reads
_HASHED = "64m"  # a join's smaller side in one task, up to which it is hashed and none is sorted
Batches = Iterator[pa.RecordBatch]
# What decides the bytes of a file: two attempts at a task must write the same ones.
_VERSIONS = {"embedmill": __version__, "pyarrow": pa.__version__}


@dataclass
class Done:
    """What the tasks of a frame did: files written, counts summed."""

    files: list[FileEntry] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)


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


def software(session: SparkSession) -> dict[str, str]:
    """Versions of the engine, for a manifest."""
    return {"spark": session.version, "pyspark": pyspark.__version__, "pyarrow": pa.__version__}


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


def tasks_for(size: int, most: int) -> int:
    """How many tasks work on `size` bytes that come in `most` pieces, each task some pieces.

    A task of Python costs Spark a tenth of a second, however little it does.
    """
    return max(1, min(most, -(-size // TASK_BYTES)))


def spread(session: SparkSession, rows: pa.Table, key: str, tasks: int) -> DataFrame:
    """A small table as a frame with its rows spread over tasks by a hash of `key`."""
    return session.createDataFrame(rows).repartition(tasks, key)


def collect(frame: DataFrame) -> pa.Table:
    """A frame that does not grow with the data, as a table on the driver.

    Raises:
        EmbedmillError: ours, when a task raised one.
        MachineError: the engine failed otherwise.
    """
    try:
        return frame.toArrow()
    except EmbedmillError:
        raise
    except Exception as error:
        raise _translated(error) from error


def report(entry: FileEntry | None, counts: Mapping[str, int]) -> pa.RecordBatch:
    """One row of REPORT."""
    row = {
        "path": entry.path if entry else "",
        "rows": (entry.rows or 0) if entry else 0,
        "bytes": entry.bytes if entry else 0,
        "sha256": entry.sha256 if entry else "",
        "counts": json.dumps(counts, sort_keys=True),
    }
    return pa.RecordBatch.from_pylist([row], schema=REPORT_ARROW)


def gather(frame: DataFrame) -> Done:
    """Run a frame of REPORT rows; files in order of path."""
    done = Done()
    for row in collect(frame).to_pylist():
        if row["path"]:
            names = ("path", "rows", "bytes", "sha256")
            done.files.append(FileEntry(**{name: row[name] for name in names}))
        done.counts.update(json.loads(row["counts"]))
    done.files.sort(key=lambda f: f.path)
    return done


def mapped(
    frame: DataFrame, task: Callable[[Batches], Batches], schema: str, *, reads: bool = False
) -> DataFrame:
    """`mapInArrow`, typed. Rows of a task that `reads` a log or artifact count as progress.

    A task raises MachineError where its packages are not those of this process.
    """
    return frame.mapInArrow(cast(Any, _Counted(task, reads, _VERSIONS)), schema)


@contextmanager
def watched(progress: Progress, unit: str) -> Iterator[None]:
    """Tell how many rows the tasks have read while the block waits for the engine.

    The embedded engine's tasks run in this process and are counted as they go; those of
    another engine are out of sight, and nothing is told.
    """
    ended, before = threading.Event(), _rows_read

    def tell() -> None:
        while not ended.wait(_LOOK):
            if _rows_read > before:
                progress.update(_rows_read - before, None, unit)

    teller = threading.Thread(target=tell, name="progress", daemon=True)
    teller.start()
    try:
        yield
    finally:
        ended.set()
        teller.join()


@dataclass(frozen=True)
class _Counted:
    """A task of the driver's software that is known to run, so that no process ends below it."""

    task: Callable[[Batches], Batches]
    reads: bool
    versions: Mapping[str, str]

    def __call__(self, batches: Batches) -> Batches:
        _agree(self.versions)
        _count(1)
        try:
            for batch in self.task(batches):
                if self.reads:
                    _count(0, batch.num_rows)
                yield batch
        finally:
            _count(-1)


def _agree(versions: Mapping[str, str]) -> None:
    """Raise MachineError unless this process has the driver's packages."""
    for name, wanted in versions.items():
        if _VERSIONS[name] != wanted:
            raise MachineError(
                f"a task has {name} {_VERSIONS[name]}, the driver {wanted}",
                where=socket.gethostname(),
                todo="Give all nodes one environment, or ship it with --archives",
            )


def _count(tasks: int, rows: int = 0) -> None:
    global _rows_read, _tasks_running
    with _TASKS:
        _tasks_running += tasks
        _rows_read += rows
        _TASKS.notify_all()


def together(batches: Batches, schema: pa.Schema) -> pa.Table:
    """All batches of a task as one table; `schema` is for a task that gets none."""
    kept = [b for b in batches if b.num_rows]
    table = pa.Table.from_batches(kept) if kept else schema.empty_table()
    return table.combine_chunks()


@contextmanager
def turn() -> Iterator[None]:
    """Wait for a core. Sail runs all tasks of a stage at once, in threads of this process:
    were they all to sort at once, memory would grow with the number of tasks. Never yield
    from inside: whoever reads the rows may wait for a turn too.
    """
    with _TURNS:
        yield


def by_key(table: pa.Table, key: str) -> Iterator[tuple[int, pa.Table]]:
    """The rows of each value of an integer column, which is left out, by rising value."""
    keys, table = table[key].to_numpy(), table.drop_columns([key])
    values, sizes = np.unique(keys, return_counts=True)
    order = np.argsort(keys, kind="stable") if len(values) > 1 else None
    end = 0
    for value, size in zip(values.tolist(), sizes.tolist(), strict=True):
        start, end = end, end + size
        yield value, table if order is None else table.take(pa.array(order[start:end]))


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
        with _TASKS:
            _TASKS.wait_for(lambda: _tasks_running <= 0, _TASKS_END)


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
        raise MachineError(
            f"no Spark Connect server answers: {_last_line(error)}", where=url
        ) from (error)
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
            f"local Apache Spark does not start: {_last_line(error)}",
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


def _translated(error: Exception) -> EmbedmillError:
    text = str(error)
    return from_text(text) or MachineError(f"the engine failed: {_last_line(error)}")


def _cause(error: Exception) -> str:
    """What the JVM says, in front of its stack; Python's last line where it was none."""
    java = getattr(error, "java_exception", None)
    return _last_line(error) if java is None else str(java.toString())


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
