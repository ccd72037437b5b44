"""Training in a driver process of its own, which tests kill and listen to."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from embedmill.pipeline import train
from embedmill.pipeline.log import Quiet
from embedmill.pipeline.store.run import Run
from tests.support.ranks import run_ranks
from tests.support.runs import planted

__all__ = ["answer", "below", "gone", "outlive_kills", "processes", "reference", "started", "until"]

HERE = Path(__file__).parent


def started(folder: Path, *sets: str, **variables: str) -> subprocess.Popen[str]:
    """A driver with keys of section train and environment variables."""
    paths = str(HERE.parents[1])
    return subprocess.Popen(
        [sys.executable, str(HERE / "train_drive.py"), str(folder), *sets],
        env={**os.environ, "PYTHONPATH": paths, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def answer(process: subprocess.Popen[str]) -> tuple[int, list[dict[str, Any]], str]:
    """Exit code, messages and stderr of a driver that has ended."""
    out, errors = process.communicate(timeout=300)
    return process.returncode, [json.loads(line) for line in out.splitlines()], errors


def until(process: subprocess.Popen[str], text: str) -> None:
    """Read the driver's lines up to a note that holds `text`."""
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if text in line:
            return
    raise AssertionError(f"no '{text}' in {lines}: {process.communicate()[1]}")


def processes() -> dict[int, tuple[int, str]]:
    """Parent and title of every process."""
    found = {}
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            title = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            found[int(entry.name)] = (parent, title)
    return found


def below(pid: int) -> dict[int, str]:
    """Titles of all descendants of a process."""
    every, found, heads = processes(), {}, {pid}
    while heads:
        heads = {p for p, (parent, _) in every.items() if parent in heads}
        found |= {p: every[p][1] for p in heads}
    return found


def reference(run: Run) -> dict[str, str]:
    """Hashes of an undisturbed training by two ranks without Ray."""
    outcome = train.train_worker(
        train.WorkerTask.of(run, run.writer("train")), train.Group.current(), Quiet()
    )
    return {f.path: f.sha256 for f in outcome.files}


def gone(pids: set[int], seconds: float = 30) -> set[int]:
    """Which of these processes are still there after a while."""
    deadline = time.monotonic() + seconds
    while (left := pids & processes().keys()) and time.monotonic() < deadline:
        time.sleep(0.2)
    return left


def outlive_kills(folder: Path, title: str, *sets: str, **variables: str) -> None:
    """Kill a worker, then the driver, in mid-training; the same command ends as undisturbed.

    Args:
        folder: of the runs.
        title: part of the title of a worker's process.
        sets: keys of section train.
        variables: of the first driver's environment.
    """
    long = {"epochs": 60, "patience": 0, "dim": 8}
    sets = (*sets, *(f"{key}={value}" for key, value in long.items()))

    def workers_of(driver: subprocess.Popen[str]) -> set[int]:
        return {pid for pid, found in below(driver.pid).items() if title in found}

    driver = started(folder / "run", *sets, **variables)
    until(driver, "epoch 3/")
    os.kill(min(workers_of(driver)), signal.SIGKILL)
    until(driver, "resumed at epoch")
    workers = workers_of(driver)
    assert len(workers) == 2
    driver.kill()
    driver.communicate()
    assert not gone(workers, 10)
    code, messages, errors = answer(started(folder / "run", *sets))
    assert code == 0, errors
    assert "resumed at epoch" in messages[0]["note"]
    calm = planted(folder / "calm", train=long)
    first, second = run_ranks(reference, 2, folder, calm)
    assert messages[-1]["files"] == first == second
