"""Drivers whose clusters lose nodes: one is killed in each stage, and started again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from harness.clusters import Cluster

__all__ = ["Strikes", "run_until_done"]

_DOWN = 5.0  # seconds until a killed node is started again
_LOOK = 0.05  # seconds between two looks at the nodes
_TRIES = 12  # of a command
_AGAIN = 7  # exit code: the same command goes on
_LAST = 30  # lines that an error repeats
_NO_TASKS = "report"  # the stage in which no node has work

Event = Mapping[str, Any]


@dataclass
class Strikes:
    """Kills a node in each stage of `delays`, so many seconds after the stage has begun."""

    clusters: Mapping[str, Cluster]
    delays: dict[str, float]
    struck: dict[str, int] = field(default_factory=dict)
    _over: dict[str, threading.Event] = field(default_factory=dict)
    _threads: list[threading.Thread] = field(default_factory=list)

    def hear(self, event: Event) -> None:
        """Take an event of a driver's log."""
        stage = event.get("stage") or ""
        if event["event"] == "started" and stage in self.delays and stage not in self.struck:
            self._over[stage] = threading.Event()
            self._threads.append(threading.Thread(target=self._strike, args=(stage,)))
            self._threads[-1].start()
        elif event["event"] in ("built", "failed", "stopped") and stage in self._over:
            self._over[stage].set()

    def settle(self) -> None:
        """Wait until all nodes are up again; stages that have not ended have now.

        Raises:
            SystemExit: a node does not come up.
        """
        for over in self._over.values():
            over.set()
        for thread in self._threads:
            thread.join()
        self._threads.clear()
        down = [n.name for one in self.clusters.values() for n in one.workers if not n.up]
        if down:
            raise SystemExit(f"{down[0]} did not start again")

    def _strike(self, stage: str) -> None:
        cluster, over = self.clusters[stage], self._over[stage]
        over.wait(self.delays[stage])
        node, busy = cluster.busiest()
        while not over.is_set() and not (node.up and (busy or stage == _NO_TASKS)):
            over.wait(_LOOK)
            node, busy = cluster.busiest()
        if over.is_set():
            return
        node.kill()
        if not over.is_set():
            self.struck[stage] = busy
            print(f"  {stage}: {node.name} killed, {busy} processes at work", flush=True)
        time.sleep(_DOWN)
        node.start()


def _run(
    command: list[str], variables: Mapping[str, str], hear: Callable[[Event], None]
) -> tuple[int, str]:
    """Run a driver that logs JSON; its exit code and last lines.

    Args:
        command: with `--log json`.
        variables: of its environment, beside those of this process.
        hear: is told each event.
    """
    last: deque[str] = deque(maxlen=_LAST)
    driver = subprocess.Popen(
        command, env={**os.environ, **variables}, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, errors="replace",
    )  # fmt: skip
    assert driver.stdout is not None
    try:
        for line in driver.stdout:  # spark-submit passes on all of it there
            sys.stderr.write(line)
            last.append(line)
            if line.startswith('{"time"'):
                hear(json.loads(line))
        return driver.wait(), "".join(last)
    finally:
        driver.kill()


def run_until_done(
    command: list[str], variables: Mapping[str, str], strikes: Strikes | None = None
) -> int:
    """Run a driver, again where it ends with exit code 7; how often it was run.

    Raises:
        SystemExit: it ends with another code, or too often.
    """
    for count in range(1, _TRIES + 1):
        code, said = _run(command, variables, strikes.hear if strikes else lambda _: None)
        if strikes:
            strikes.settle()
        if code == 0:
            return count
        print(f"  exit {code}: {said.splitlines()[-1] if said else ''}", flush=True)
        if code != _AGAIN:
            break
    raise SystemExit(f"{' '.join(command)}\nended with code {code}; it said last:\n{said}")
