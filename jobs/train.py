"""train: Ray Train places and restarts the workers; the loop in them is plain torch.

    python jobs/train.py examples/movielens-100k.toml --set train.workers=4

With RAY_ADDRESS it joins that cluster (`ray job submit` sets it), otherwise it starts a Ray of
its own on this machine, whatever else runs here, and stops it at the end.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import ray
import torch
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer

from jobs.launch import Job, main_of
from jobs.mailbox import Mail, Mailbox
from pipeline import train
from pipeline.artifact import Writer
from pipeline.config import TrainConfig
from pipeline.errors import EmbedmillError, MachineError, TrainingError, from_text
from pipeline.log import Progress
from pipeline.run import Run

__all__ = ["build", "forget", "main"]

_EVERY = 0.2  # seconds between two looks at the workers

# Ray Train looks at its workers every 2 s unless told otherwise; an end is noticed so late too.
_QUIET = {
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}

# A Ray of our own has one machine and nobody to take it away; each actor less starts sooner.
_LOCAL = {"RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0"}


def build(run: Run, out: Writer, progress: Progress) -> None:
    """Train with the launcher that the config names, and commit.

    Raises:
        MachineError: the cluster cannot be reached or is too small, or workers kept failing.
        TrainingError: training cannot go on; nothing is published.
    """
    if run.config.train.launcher == "inline":
        train.build(run, out, progress)
        return
    train.check(run, progress)
    with _cluster(run.config.train) as folder:
        outcome = _fit(train.Task.of(run, out), folder, progress)
    train.commit(run, out, outcome)


def forget(run: Run) -> None:
    """Drop the checkpoints of a training that was stopped half-way."""
    train.discard_checkpoints(run)


def main(argv: Sequence[str] | None = None) -> int:
    """The job's command line; returns the exit code."""
    return main_of("train", Job(build, forget=forget), argv)


class _Sender:
    """A worker's progress: sends to the mailbox, seldom, and never waits for it."""

    def __init__(self, mailbox: Any) -> None:
        self._mailbox = mailbox
        self._sent = 0.0

    def update(self, done: int, total: int | None, unit: str, **facts: float) -> None:
        now = time.monotonic()
        if now - self._sent >= _EVERY:
            self._sent = now
            self._mailbox.update.remote(done, total, unit, facts)

    def note(self, text: str) -> None:
        self._mailbox.note.remote(text)


def _work(config: dict[str, Any]) -> train.Outcome | None:
    """A worker. Errors of ours are told and not raised: Ray would start the workers again."""
    task, mailbox = config["task"], config["mailbox"]
    threading.Thread(target=_end_with_ray, args=(os.getppid(),), daemon=True).start()
    settings = task.run.config.train
    torch.set_num_threads(settings.threads)
    try:
        return train.work(task, train.Group.joined(settings.device), _Sender(mailbox))
    except train.StoppedError:
        return None
    except EmbedmillError as error:
        ray.get(mailbox.fail.remote(error))
        return None


def _end_with_ray(parent: int) -> None:
    """End this worker when its Ray is gone, as after a `kill -9` of the driver.

    Ray ends it too, but late: until then it would write checkpoints beside its successor's.
    """
    while os.getppid() == parent:
        time.sleep(_EVERY)
    os._exit(1)


def _fit(task: train.Task, folder: str, progress: Progress) -> train.Outcome:
    config = task.run.config.train
    mailbox = ray.remote(Mailbox).options(num_cpus=0).remote()
    gpu = config.device == "cuda"
    trainer = TorchTrainer(
        _work,  # type: ignore[arg-type]
        train_loop_config={"task": task, "mailbox": mailbox},
        torch_config=TorchConfig(backend="nccl" if gpu else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=config.workers,
            use_gpu=gpu,
            resources_per_worker={"CPU": config.threads, **({"GPU": 1} if gpu else {})},
        ),
        run_config=RunConfig(
            name="train",
            storage_path=folder,
            failure_config=FailureConfig(max_failures=config.max_failures),
        ),
    )
    result = _watched(trainer, mailbox, progress)
    error = _forward(mailbox, progress)
    if error is not None:
        raise error
    if isinstance(result, BaseException):
        _explain(result, config)
    outcome: train.Outcome = result.return_value
    return outcome


def _watched(trainer: TorchTrainer, mailbox: Any, progress: Progress) -> Any:
    """The trainer's result or exception. It runs in a thread, so Ctrl-C stays with us."""
    ended: list[Any] = []

    def fit() -> None:
        try:
            ended.append(trainer.fit())
        except BaseException as error:
            ended.append(error)

    thread = threading.Thread(target=fit, name="ray-train", daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(_EVERY)
        _forward(mailbox, progress)
    return ended[0]


def _forward(mailbox: Any, progress: Progress) -> EmbedmillError | None:
    """Pass on what the workers said; returns the error that ends training, if any."""
    mail: Mail = ray.get(mailbox.take.remote())
    for text in mail.notes:
        progress.note(text)
    if mail.latest is not None:
        done, total, unit, facts = mail.latest
        progress.update(done, total, unit, **facts)
    return mail.error


def _explain(error: BaseException, config: TrainConfig) -> NoReturn:
    ours = from_text(str(error))
    if ours is not None:
        raise ours from error
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    raise TrainingError(
        f"the workers failed {config.max_failures + 1} times, at last with: {lines[-1]}",
        where="train",
        todo="What was trained is kept: run the same command again to go on",
    ) from error


@contextlib.contextmanager
def _cluster(config: TrainConfig) -> Iterator[str]:
    """A Ray to train on; yields a folder for its files, removed afterwards.

    Raises:
        MachineError: it does not start, cannot be reached, or has too few CPUs or GPUs.
    """
    address = os.environ.get("RAY_ADDRESS", "")
    # Ray's sockets live below its folder, and a socket's path has at most 107 bytes.
    base = "/tmp" if Path("/tmp").is_dir() else None
    folder = tempfile.mkdtemp(prefix="embedmill-", dir=base)
    mine = not ray.is_initialized()
    try:
        if not address and not os.environ.keys() & {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"}:
            # Or Ray writes one to the home folder. It stays: Ray's threads outlive a shutdown.
            os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
        with _environment(_QUIET if address else {**_QUIET, **_LOCAL}):
            if mine:
                _start(address, folder, config)
            _check_size(config)
            yield f"{folder}/fit"
    finally:
        if mine:
            ray.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


def _start(address: str, folder: str, config: TrainConfig) -> None:
    before = signal.getsignal(signal.SIGTERM)
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    try:
        if address:
            _knock(address)
            ray.init(address=address, **quiet)
            return
        ray.init(
            address="local",
            num_cpus=max(os.cpu_count() or 1, config.workers * config.threads),
            include_dashboard=False,
            _temp_dir=folder,
            **quiet,
        )
    except Exception as error:  # Ray raises all kinds here, its own and gRPC's among them
        what = f"Ray at {address} cannot be reached" if address else "Ray does not start"
        raise MachineError(
            f"{what}: {error}",
            where="train",
            todo="Check RAY_ADDRESS" if address else "Or set train.launcher = 'inline'",
        ) from error
    finally:
        # Ray takes SIGTERM, to print a stack and abort; we want to leave as at Ctrl-C.
        if before is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


def _knock(address: str) -> None:
    """Raise OSError unless something listens: Ray's own client would end the process."""
    host, colon, port = address.rpartition(":")
    if colon and port.isdigit() and "//" not in host:
        socket.create_connection((host, int(port)), timeout=10).close()


def _check_size(config: TrainConfig) -> None:
    has: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    wanted = {"CPU": config.workers * config.threads}
    if config.device == "cuda":
        wanted["GPU"] = config.workers
    for name, number in wanted.items():
        if has.get(name, 0) < number:
            raise MachineError(
                f"train.workers = {config.workers} need {number} {name}s, "
                f"the Ray cluster has {has.get(name, 0):g}",
                where="train",
                todo="Lower train.workers or add nodes",
            )


@contextlib.contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    """Variables that Ray reads, where the user has not set them."""
    added = {k: v for k, v in variables.items() if k not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for key in added:
            os.environ.pop(key, None)


if __name__ == "__main__":
    sys.exit(main())
