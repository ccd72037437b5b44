"""Servers that drivers need, which a storm kills and starts again: engines, and an S3 server."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pyspark

from tests.support.spark_clusters import REPOSITORY, connect_server
from tests.support.train_drivers import below

__all__ = ["EXECUTOR", "Engine", "sail_server", "spark_executors"]

EXECUTOR = "CoarseGrainedExecutorBackend"  # in the title of an executor of Spark
_START = 60.0  # seconds
Serve = Callable[[int], AbstractContextManager[object]]


@dataclass
class Engine:
    """A server of Spark Connect on a port of its own.

    Attributes:
        serve: runs a server on a port while a block runs.
        word: in the title of its process.
        port: of it, also when it was started again.
    """

    serve: Serve
    word: str
    port: int
    _running: ExitStack = field(default_factory=ExitStack)

    @property
    def url(self) -> str:
        """For `run.engine`."""
        return f"sc://127.0.0.1:{self.port}"

    def start_again(self) -> None:
        """Start it, for the first time or after `kill`; it answers when this returns."""
        self._running.enter_context(self.serve(self.port))

    def kill(self) -> None:
        """Kill its process, and see it end."""
        self._signal(signal.SIGKILL)
        self.close()

    def pause(self) -> None:
        """Stop its process, which keeps its connections and answers nothing."""
        self._signal(signal.SIGSTOP)

    def wake(self) -> None:
        """Let a paused process go on."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        for pid, title in below(os.getpid()).items():
            if self.word in title:
                with suppress(ProcessLookupError):
                    os.kill(pid, number)

    def close(self) -> None:
        """End it."""
        self._running.close()


def spark_executors(folder: Path) -> AbstractContextManager[Engine]:
    """Spark Connect with two executors in processes of their own, each of which has one core."""
    return _served(partial(_spark, folder), "SparkConnectServer")


@contextmanager
def _spark(folder: Path, port: int) -> Iterator[None]:
    try:
        with connect_server(folder, REPOSITORY, "local-cluster[2,1,1024]", port):
            yield
    finally:  # executors of a local cluster leave theirs in Spark's own folder
        said = (folder / "connect.log").read_text(errors="replace")
        for name in set(re.findall(r"\bapp-\d{14}-\d{4}\b", said)):
            shutil.rmtree(Path(pyspark.__file__).parent / "work" / name, ignore_errors=True)


def sail_server(folder: Path) -> AbstractContextManager[Engine]:
    """Sail as a server in a process of its own."""
    return _served(partial(_sail, folder), "spark server --port")


@contextmanager
def _served(serve: Serve, word: str) -> Iterator[Engine]:
    engine = Engine(serve, word, _free_port())
    try:
        engine.start_again()
        yield engine
    finally:
        engine.close()


@contextmanager
def _sail(folder: Path, port: int) -> Iterator[None]:
    command = [str(Path(sys.executable).parent / "sail"), "spark", "server", "--port", str(port)]
    variables = {**os.environ, "PYTHONPATH": str(REPOSITORY), "RUST_LOG": "error"}
    with (folder / "sail.log").open("ab") as log:
        server = subprocess.Popen(
            command, env=variables, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
        )
    try:
        _listening(server, port)
        yield
    finally:
        server.kill()
        server.wait()


def _listening(server: subprocess.Popen[bytes], port: int) -> None:
    end = time.monotonic() + _START
    while server.poll() is None and time.monotonic() < end:
        with suppress(OSError):
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        time.sleep(0.1)
    raise RuntimeError(f"{server.args} does not listen")


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        port: int = found.getsockname()[1]
        return port
