"""Apache Spark in processes of its own, on loopback: a standalone cluster, a Connect server.

    python tests/prepare/clusters.py

starts the cluster, prints its address, and ends it at Ctrl-C.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pyspark

__all__ = ["SUBMIT", "Order", "connect_server", "environment", "standalone", "submit"]

REPOSITORY = Path(__file__).resolve().parents[2]
SUBMIT = str(Path(sys.executable).parent / "spark-submit")
# Two addresses of one machine: Spark runs no second copy of a slow task on the host of the first.
WORKERS = ("127.0.0.1", "127.0.0.2")
SETTINGS = {
    "spark.sql.session.timeZone": "UTC",
    "spark.ui.enabled": "false",
    "spark.sql.shuffle.partitions": "4",
    "spark.driver.host": "127.0.0.1",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.log.level": "WARN",
}
_START = 120.0  # seconds
_SUBMITTED = 500.0
_DIE_WITH_PARENT = 1  # prctl's PR_SET_PDEATHSIG
_LIBC = ctypes.CDLL(None)  # loaded before any fork


@dataclass(frozen=True)
class Order:
    """A run for `submitted.py`: its TOML, where to tell about it, stages, and faults."""

    config: Path
    folder: Path
    stages: tuple[str, ...] = ("events", "vocab", "shards")
    faults: Mapping[str, str] = field(default_factory=dict)

    def as_json(self) -> dict[str, object]:
        """What `submitted.py` reads."""
        return {
            "config": str(self.config),
            "folder": str(self.folder),
            "stages": list(self.stages),
            "faults": dict(self.faults),
        }


def environment(**changed: str) -> dict[str, str]:
    """Of a process that sees no source but what it is given, and starts soon."""
    mine = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYSPARK_GATEWAY_PORT")}
    return {
        **mine,
        "EMBEDMILL_PREFIX": sys.prefix,
        "PYSPARK_PYTHON": sys.executable,
        "PYSPARK_DRIVER_PYTHON": sys.executable,
        "JAVA_TOOL_OPTIONS": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC -Xshare:auto",
        "SPARK_LOCAL_IP": "127.0.0.1",
        **changed,
    }


@contextmanager
def standalone(folder: Path) -> Iterator[str]:
    """A master and two workers of one core each, ended for certain; gives the master's address."""
    docker = REPOSITORY / "docker"
    with ExitStack() as stack:
        master = environment(SPARK_HOST="127.0.0.1", SPARK_PORT="0", SPARK_UI_PORT="0")
        log = folder / "master.log"
        one = stack.enter_context(_process([str(docker / "start-spark-master.sh")], master, log))
        address = _said(one, log, r"spark://127\.0\.0\.1:\d+")
        for number, host in enumerate(WORKERS):
            worker = environment(
                SPARK_MASTER=address,
                SPARK_LOCAL_IP=host,
                SPARK_CORES="1",
                SPARK_MEMORY="1g",
                SPARK_UI_PORT="0",
                SPARK_WORK=str(folder / f"work-{number}"),
            )
            command = [str(docker / "start-spark-worker.sh"), "--host", host]
            stack.enter_context(_process(command, worker, folder / f"worker-{number}.log"))
        for number in range(len(WORKERS)):
            _said(one, folder / f"worker-{number}.log", "Successfully registered with master")
        yield address


@contextmanager
def connect_server(
    folder: Path, package: Path, master: str = "local[2,4]", port: int = 0
) -> Iterator[str]:
    """A Spark Connect server; gives its URL.

    Args:
        folder: of its log.
        package: where its tasks find our packages.
        master: Spark's.
        port: that it listens on; 0 for any.
    """
    kind = "org.apache.spark.sql.connect.service.SparkConnectServer"
    settings = {
        "spark.connect.grpc.binding.address": "127.0.0.1",
        "spark.connect.grpc.binding.port": str(port),
        "spark.log.level": "INFO",
    }
    command = [SUBMIT, "--master", master, "--class", kind, *_conf({**SETTINGS, **settings})]
    log = folder / "connect.log"
    with _process(command, environment(PYTHONPATH=str(package)), log) as server:
        found = _said(server, log, r"Spark Connect server started at: \S*?:(\d+)")
        yield f"sc://127.0.0.1:{found}"


def submit(
    master: str,
    orders: Sequence[Order],
    folder: Path,
    *options: str,
    settings: Mapping[str, str] | None = None,
    source: str = "",
    **changed: str,
) -> None:
    """Run all orders in one submission; see `submitted.py`.

    Args:
        master: Spark's.
        orders: what to run.
        folder: an empty one, where the driver finds nothing but itself.
        options: further ones of spark-submit.
        settings: Spark's, beside SETTINGS.
        source: where the driver finds our packages, if they are not submitted.
        changed: variables of the environment.

    Raises:
        RuntimeError: the driver failed; with the end of what it said.
    """
    here = Path(__file__).parent
    for name in ("submitted.py", "faults.py"):
        (folder / name).write_bytes((here / name).read_bytes())
    (folder / "orders.json").write_text(json.dumps([one.as_json() for one in orders]))
    for one in orders:
        one.folder.mkdir(parents=True, exist_ok=True)
    command = [SUBMIT, "--master", master, *_conf({**SETTINGS, **(settings or {})}), *options]
    command += [str(folder / "submitted.py"), str(folder / "orders.json"), source]
    log = folder / "driver.log"
    try:
        with _process(command, environment(**changed), log, folder) as driver:
            code = driver.wait(_SUBMITTED)
    finally:
        _tidy(folder / "application")
    if code:
        raise RuntimeError(f"the driver ended with {code}: {_end(log)}")


def _tidy(application: Path) -> None:
    """Remove what the executors of a local cluster leave in Spark's own folder."""
    if application.exists():
        work = Path(pyspark.__file__).parent / "work" / application.read_text(encoding="utf-8")
        shutil.rmtree(work, ignore_errors=True)


def _conf(settings: Mapping[str, str]) -> list[str]:
    return [word for key, value in settings.items() for word in ("--conf", f"{key}={value}")]


@contextmanager
def _process(
    command: Sequence[str], environ: Mapping[str, str], log: Path, folder: Path | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A process in a group of its own, which ends with the block or with this process."""
    with log.open("wb") as out:
        started = subprocess.Popen(
            command,
            env=environ,
            cwd=folder or log.parent,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=_die_with_parent,
        )
    try:
        yield started
    finally:
        for stop, patience in ((signal.SIGTERM, 5.0), (signal.SIGKILL, 20.0)):
            try:
                os.killpg(started.pid, stop)
                started.wait(patience)
            except (ProcessLookupError, subprocess.TimeoutExpired):
                continue
        started.wait(1)


def _die_with_parent() -> None:
    _LIBC.prctl(_DIE_WITH_PARENT, signal.SIGKILL)


def _said(process: subprocess.Popen[bytes], log: Path, pattern: str) -> str:
    """What a log says sooner or later: the pattern's group, or all of it."""
    until = time.monotonic() + _START
    while time.monotonic() < until and process.poll() is None:
        found = re.search(pattern, log.read_text(errors="replace")) if log.exists() else None
        if found:
            return found[found.re.groups]
        time.sleep(0.05)
    raise RuntimeError(f"{log.name} does not say '{pattern}': {_end(log)}")


def _end(log: Path) -> str:
    return log.read_text(errors="replace")[-6000:]


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch, standalone(Path(scratch)) as running:
        print(f"a master and {len(WORKERS)} workers: {running}", flush=True)
        signal.sigwait({signal.SIGINT, signal.SIGTERM})
