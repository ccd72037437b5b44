"""A root, a log, and drivers as processes; what must hold when they have ended."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from embedmill.pipeline.config import Config, parse, to_toml
from embedmill.pipeline.errors import EmbedmillError
from embedmill.pipeline.query import lookup
from embedmill.pipeline.store.run import Run, find_run, published
from embedmill.schemas.stages import STAGES
from tests.support.worlds import PlantedWorld, config_tree, laid

__all__ = ["ENDS", "ENVIRONMENT", "EPOCHS", "FoundError", "Place", "Reader", "contents", "marked"]

ENVIRONMENT = "STORM_PLACE"
# How a driver may end, whatever strikes: well, training or machine, in use, stopped, killed.
ENDS = {0, 5, 7, 8, 129, 130, 143, -signal.SIGKILL, -signal.SIGTERM, -signal.SIGHUP, -signal.SIGINT}
EPOCHS = 60
# Ray ends a process itself, with exit code 1, where a raylet ends before it has answered once.
RAY_ENDS = "Failed to get the system config from raylet because it is dead"
LIMIT = 240.0  # seconds that a driver may take


class FoundError(Exception):
    """Something that must hold does not."""


@dataclass
class Place:
    """A folder with a log and a root; processes of drivers that work on it.

    Attributes:
        folder: on a local disk.
        root: of the runs: a folder, or a URL.
        engine: URL of the server of its engine; '' for what the config says.
        variables: of the environment of drivers.
    """

    folder: Path
    root: str
    engine: str = ""
    variables: dict[str, str] = field(default_factory=dict)
    mark: str = field(default_factory=lambda: uuid.uuid4().hex)
    drivers: list[subprocess.Popen[str]] = field(default_factory=list)
    said: list[dict[str, Any]] = field(default_factory=list)

    def config(self, **sections: Mapping[str, Any]) -> Config:
        """The config of the run, and a file with it."""
        log = self.folder / "log.tsv"
        if not log.exists():
            PlantedWorld().write(log)
        tree = laid(
            config_tree(self.root, log),
            train={
                "objective": "softmax", "epochs": EPOCHS, "checkpoint_steps": 9, "patience": 0,
            },
            run={"engine": self.engine} if self.engine else {},
        )  # fmt: skip
        return parse(laid(tree, **sections))

    def start(self, config: Config, faults: Mapping[str, Any], *words: str) -> Any:
        """Start a driver."""
        path = self.folder / f"{uuid.uuid4().hex}.toml"
        path.write_text(to_toml(config), encoding="utf-8")
        variables = {ENVIRONMENT: self.mark, "STORM_FAULTS": json.dumps(dict(faults))}
        driver = subprocess.Popen(
            [sys.executable, "-m", "tests.storm.driver", "run", str(path), *words],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **self.variables, **variables},
            start_new_session=True,
        )
        self.drivers.append(driver)
        return driver

    def end(self, driver: subprocess.Popen[str]) -> int:
        """Wait for a driver; how it ended.

        Raises:
            FoundError: it does not end, ends in a trace, or in an exit code that says nothing.
        """
        try:
            _, errors = driver.communicate(timeout=LIMIT)
        except subprocess.TimeoutExpired:
            driver.kill()
            raise FoundError(f"a driver did not end within {LIMIT:.0f} s") from None
        code = driver.returncode
        self.said.append({"code": code, "said": errors.strip()[-300:]})
        if code == 1 and RAY_ENDS in errors:
            return code
        if "Traceback" in errors or "this is a bug" in errors or code not in ENDS:
            raise FoundError(f"exit {code}: {errors.strip()[-3000:]}")
        return code

    def finish(self, config: Config, *words: str) -> Run:
        """Run the same command until it ends well, undisturbed; twice should do.

        Raises:
            FoundError: it does not.
        """
        for _ in range(3):
            if self.end(self.start(config, {}, *words)) == 0:
                return Run(config)
            time.sleep(3)  # a lease of another machine
        raise FoundError(f"the same command does not end well: {self.said[-1]}")

    def check_gone(self, seconds: float = 20.0) -> None:
        """Raise FoundError where a process of this place is left."""
        end = time.monotonic() + seconds
        while left := list(marked(self.mark)):
            if time.monotonic() > end:
                for pid, _ in left:
                    os.kill(pid, signal.SIGKILL)
                raise FoundError(f"processes are left: {left}")
            time.sleep(0.2)


def marked(mark: str) -> Iterator[tuple[int, str]]:
    """Processes that run in the environment of a place, with their titles; no zombies."""
    wanted = f"{ENVIRONMENT}={mark}".encode()
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if wanted in (entry / "environ").read_bytes().split(b"\0"):
                title = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
                if state not in "ZX":
                    yield int(entry.name), title[:200]
        except OSError:
            continue


def contents(run: Run, *, check: bool = True) -> dict[str, str]:
    """Content of each stage, and the published one.

    Raises:
        FoundError: a stage is missing, or a file differs from its manifest.
    """
    found = {}
    for stage in STAGES:
        artifact = run.find(stage)
        if artifact is None:
            raise FoundError(f"{stage} has not finished")
        if check and (wrong := list(artifact.verify())):
            raise FoundError(f"verify: {stage}: {wrong}")
        found[stage] = artifact.manifest.content
    pointer = published(run.config.run.root)
    if pointer is None or pointer.stages != found:
        raise FoundError(f"published is {pointer}, the run is {found}")
    return found


class Reader:
    """Asks for recommendations, and verifies the run, as long as a round lasts.

    Each answer is one of a whole run, and no file differs from a manifest that is there.
    """

    def __init__(self, root: str, known: list[list[str]]) -> None:
        self.asked, self.answered, self.verified, self.found = 0, 0, 0, list[str]()
        self._root, self._known = root, known
        self._ended = threading.Event()
        self._threads = [
            threading.Thread(target=read, daemon=True) for read in (self._read, self._verify)
        ]

    @contextmanager
    def reading(self) -> Iterator[Reader]:
        """Ask while a block runs."""
        for thread in self._threads:
            thread.start()
        try:
            yield self
        finally:
            self._ended.set()
            for thread in self._threads:
                thread.join(60)

    def _verify(self) -> None:
        command = [sys.executable, "-m", "embedmill", "verify", f"{self._root}/tiny"]
        while not self._ended.wait(4):
            said = subprocess.run(command, capture_output=True, text=True, check=False)
            self.verified += said.returncode == 0
            if said.returncode and "no run here" not in said.stderr:
                self.found.append(f"verify: exit {said.returncode}: {said.stderr[-2000:]}")

    def _read(self) -> None:
        while not self._ended.wait(0.1):
            self.asked += 1
            try:
                answer = ask(self._root)
            except EmbedmillError:
                continue  # nothing is published, or it is being built anew: a sentence
            except Exception as error:
                self.found.append(f"a reader met {type(error).__name__}: {error}")
                continue
            self.answered += 1
            if answer not in self._known:
                self.found.append(f"a reader was told {answer}")


def ask(root: str) -> list[str]:
    """What is recommended to a user."""
    return [hit.item for hit in lookup.recommend(find_run(root), "u1", 5)]
