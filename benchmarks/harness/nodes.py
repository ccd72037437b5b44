"""Nodes of clusters: processes that can be killed with all below them, and started again."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from embedmill.pipeline.memory import descendants

__all__ = ["Node", "free_port"]

_START = 120.0  # seconds
_END = 2000  # characters of a log that an error repeats


@dataclass(eq=False)
class Node:
    """A node that runs in the foreground.

    Attributes:
        name: for people, and of its log.
        command: that starts it.
        environment: variables beside those of this process.
        log: file of what it says, anew with each start.
        ready: pattern of what it says when it can be used.
    """

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    log: Path
    ready: str
    up: bool = False
    _process: subprocess.Popen[bytes] | None = None
    _changing: threading.Lock = field(default_factory=threading.Lock)
    _closed: bool = False

    def start(self) -> None:
        """Start it, and wait until it can be used.

        Raises:
            SystemExit: it ends, or does not say that it is ready.
        """
        with self._changing:
            if self._closed:
                return
            with self.log.open("wb") as out:
                self._process = subprocess.Popen(
                    self.command, env={**os.environ, **self.environment}, cwd=self.log.parent,
                    stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT,
                    start_new_session=True,
                )  # fmt: skip
        self._wait(self._process)
        self.up = True

    def _wait(self, process: subprocess.Popen[bytes]) -> None:
        end = time.monotonic() + _START
        while time.monotonic() < end and process.poll() is None:
            if re.search(self.ready, self.log.read_text(errors="replace")):
                return
            time.sleep(0.1)
        if not self._closed:
            said = self.log.read_text(errors="replace")[-_END:]
            raise SystemExit(f"{self.name} does not say '{self.ready}': {said}")

    @property
    def pid(self) -> int:
        """Of the process that was started last; 0 before."""
        return self._process.pid if self._process else 0

    def titles(self) -> list[str]:
        """Command lines of all processes below it; none while it is down."""
        found = []
        for pid in descendants(self.pid) if self.up else []:
            with suppress(OSError):
                title = Path(f"/proc/{pid}/cmdline").read_bytes()
                found.append(title.replace(b"\0", b" ").decode(errors="replace").strip())
        return found

    def kill(self) -> None:
        """End it and all below it at once, as the loss of its machine would."""
        self.up = False
        if self._process is None:
            return
        for pid in descendants(self.pid):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait()

    def close(self) -> None:
        """End it for good."""
        with self._changing:
            self._closed = True
            self.kill()


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as held:
        return int(held.getsockname()[1])
