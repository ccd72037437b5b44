"""Training by worker processes of this machine, which torch.distributed connects.

Each worker is a new Python that gets its task through a socket and sends its messages back
through it. It is no child by fork or `multiprocessing`, which would copy the locks of the
driver's threads, or run the user's script again.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, NoReturn

import torch

from embedmill.pipeline.config import TrainConfig
from embedmill.pipeline.errors import MachineError, TrainingError
from embedmill.pipeline.log import Progress
from embedmill.pipeline.memory import oom_kills
from embedmill.pipeline.train.assembly import WorkerTask
from embedmill.pipeline.train.publish import TrainingResult
from embedmill.pipeline.train.resources.available import local_workers
from embedmill.pipeline.train.resources.out_of_memory import out_of_memory

__all__ = ["Assignment", "train_in_processes", "workers_failed"]

_INTERVAL = 0.2  # seconds between two looks at the workers
_AFTERMATH = 1.0  # seconds in which the worker that failed first is looked for
_GRACE = 5.0  # seconds in which a worker that was told to end may do so
_ENTRY = "from embedmill.pipeline.train.worker_process import main; main()"


@dataclass(frozen=True)
class Assignment:
    """What a worker process is given.

    Args:
        task: the training.
        rank: of this worker.
        world: number of workers.
        rendezvous: a file that does not exist yet, the same for all workers.
    """

    task: WorkerTask
    rank: int
    world: int
    rendezvous: str


@dataclass
class _Worker:
    process: subprocess.Popen[bytes]
    messages: Connection
    output: Path
    result: list[TrainingResult] = field(default_factory=list)


class _WorkerLostError(Exception):
    """A worker ended without a result; its message says how."""


def train_in_processes(task: WorkerTask, progress: Progress) -> TrainingResult:
    """Train by `train.workers` processes.

    If a worker ends without a result, all are started anew at the last checkpoint, up to
    `train.max_failures` times.

    Raises:
        EmbedmillError: as a worker did.
        MachineError: a worker ran out of memory, or there are fewer GPUs than workers.
        TrainingError: workers ended too often.
    """
    config = task.run.config.train
    workers = local_workers(task.run.config)
    _check_devices(config, workers)
    killed, failures = oom_kills(), 0
    while True:
        try:
            return _attempt(task, workers, progress)
        except _WorkerLostError as error:
            failures += 1
            if failures > config.max_failures:
                _raise_lost(error, failures, by_kernel=oom_kills() > killed)


def _check_devices(config: TrainConfig, workers: int) -> None:
    if config.device == "cuda" and torch.cuda.device_count() < workers:
        raise MachineError(
            f"train.workers = {workers} need one GPU each, this machine has "
            f"{torch.cuda.device_count()}",
            where="train",
            todo="Lower train.workers or set train.device = 'cpu'",
        )


def _raise_lost(error: _WorkerLostError, failures: int, *, by_kernel: bool) -> NoReturn:
    if by_kernel and "SIGKILL" in str(error):
        raise out_of_memory("and the kernel ended it") from error
    raise workers_failed(failures, str(error)) from error


def workers_failed(times: int, last: str) -> TrainingError:
    """The error for the user; `last` says how the workers failed the last time."""
    return TrainingError(
        f"the workers failed {times} times, at last with: {last}",
        where="train",
        todo="Run the same command again: it resumes at the last checkpoint",
    )


def _attempt(task: WorkerTask, workers: int, progress: Progress) -> TrainingResult:
    with tempfile.TemporaryDirectory(prefix="embedmill-train-") as folder:
        assignments = [
            Assignment(task, rank, workers, f"{folder}/rendezvous") for rank in range(workers)
        ]
        with _started(assignments, Path(folder)) as started:
            while not all(worker.result for worker in started):
                _forward(started, progress)
    return started[0].result[0]  # the same at every worker


@contextlib.contextmanager
def _started(assignments: Sequence[Assignment], folder: Path) -> Iterator[list[_Worker]]:
    """The workers; on the way out, those that still run are ended."""
    started: list[_Worker] = []
    try:
        started.extend(_start(one, folder / f"worker-{one.rank}") for one in assignments)
        yield started
    finally:
        for worker in started:
            worker.messages.close()  # a worker ends when its driver closes the socket
        deadline = time.monotonic() + _GRACE
        for worker in started:
            _end(worker.process, deadline)


def _start(assignment: Assignment, output: Path) -> _Worker:
    ours, theirs = socket.socketpair()
    settings = assignment.task.run.config.train
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path),
        "OMP_NUM_THREADS": str(settings.threads),
        # A thread that waits gives its core away: beside other work, spinning threads wait for
        # each other a hundred times as long.
        "OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "PASSIVE"),
        **_loopback(),
    }
    with theirs, output.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-P", "-c", _ENTRY, str(theirs.fileno())],
            pass_fds=(theirs.fileno(),),
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,  # Ctrl-C is the driver's
        )
    messages = Connection(ours.detach())
    worker = _Worker(process, messages, output)
    with contextlib.suppress(BrokenPipeError):  # it has ended already: `_forward` says so
        messages.send(assignment)
    return worker


def _loopback() -> dict[str, str]:
    """gloo connects workers of one machine by the loopback interface, unless told otherwise."""
    names = {name for _, name in socket.if_nameindex()}
    found = [name for name in ("lo", "lo0") if name in names]
    if "GLOO_SOCKET_IFNAME" in os.environ or not found:
        return {}
    return {"GLOO_SOCKET_IFNAME": found[0]}


def _end(process: subprocess.Popen[bytes], deadline: float) -> None:
    try:
        process.wait(max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _forward(workers: list[_Worker], progress: Progress) -> None:
    """Pass on what the workers send.

    Raises:
        EmbedmillError: the first one that a worker sent.
        _WorkerLostError: a worker has ended without a result.
    """
    waiting = {worker.messages: worker for worker in workers if not worker.result}
    for connection in wait(list(waiting), _INTERVAL):
        worker = waiting[connection]  # type: ignore[index]
        try:
            kind, values = worker.messages.recv()
        except (EOFError, OSError, pickle.UnpicklingError):
            raise _WorkerLostError(_last_words(workers)) from None
        _receive(worker, kind, values, progress)


def _receive(worker: _Worker, kind: str, values: tuple[Any, ...], progress: Progress) -> None:
    """Act on a message of `worker_process`; raises the error that it may hold."""
    match kind, values:
        case "update", (done, total, unit, facts):
            progress.update(done, total, unit, **facts)
        case "note", (text,):
            progress.note(text)
        case "record", (line,):
            progress.record(line)
        case "result", (result,):
            worker.result.append(result)
        case "error", (error,):
            raise error


def _last_words(workers: list[_Worker]) -> str:
    """How the workers ended: the signal that ended one of them, or the last line of one.

    The others fail in turn, as their exchanges with it are cut off.
    """
    deadline = time.monotonic() + _AFTERMATH
    while time.monotonic() < deadline:
        signals = [-code for worker in workers if (code := worker.process.poll() or 0) < 0]
        if signals:
            return f"a worker ended by {signal.Signals(signals[0]).name}"
        time.sleep(0.05)
    ended = [worker for worker in workers if worker.process.poll() is not None]
    lines = [
        line.strip()
        for worker in ended
        for line in worker.output.read_text(encoding="utf-8", errors="replace").split("\n")
        if line.strip()
    ]
    return lines[-1] if lines else "a worker ended without a word"
