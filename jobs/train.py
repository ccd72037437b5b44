"""train: Ray Train places and restarts the workers; the loop in them is plain torch.

    python jobs/train.py examples/movielens-100k.toml --set train.workers=4

With RAY_ADDRESS it joins that cluster (`ray job submit` sets it), otherwise it starts a Ray of
its own on this machine, whatever else runs here, and stops it at the end.
"""

from __future__ import annotations

import os
import re
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import ray
import torch
from ray.exceptions import OutOfMemoryError
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer, get_device

from embedmill.jobs.cluster import Demand, joined, workers_of
from embedmill.jobs.launch import Job, main_of
from embedmill.jobs.mailbox import Mail, Mailbox
from embedmill.pipeline import train
from embedmill.pipeline.config import Config, TrainConfig
from embedmill.pipeline.errors import EmbedmillError, TrainingError, from_text
from embedmill.pipeline.log import Progress
from embedmill.pipeline.store.artifact import Writer
from embedmill.pipeline.store.run import Run

__all__ = ["JOB", "build", "check", "forget", "main"]

_EVERY = 0.2  # seconds between two looks at the workers


def build(run: Run, out: Writer, progress: Progress) -> None:
    """Train with the launcher that the config names, and commit.

    Raises:
        MachineError: the cluster cannot be reached or is too small, or a worker ran out of memory.
        TrainingError: training cannot go on, or workers kept failing; nothing is published.
    """
    if run.config.train.launcher == "inline":
        train.build(run, out, progress)
        return
    train.check(run, progress)
    with (
        train.tracked(run, progress) as told,
        joined(Demand.of_training(run.config.train)) as folder,
    ):
        outcome = _fit(train.Task.of(run, out), folder, told)
    train.commit(run, out, outcome)


def check(config: Config) -> None:
    """Raise ConfigError for an objective, tracker or the like that there is not."""
    train.check_settings(Run(config))


def forget(run: Run) -> None:
    """Drop the checkpoints of a training that was stopped half-way."""
    train.discard_checkpoints(run)


JOB = Job("train", build, check=check, forget=forget)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the stage from a command line; returns the exit code."""
    return main_of(JOB, argv)


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

    def record(self, line: dict[str, Any]) -> None:
        self._mailbox.record.remote(line)


def _work(config: dict[str, Any]) -> train.Outcome | None:
    """A worker. Errors of ours are told and not raised: Ray would start the workers again."""
    task, mailbox = config["task"], config["mailbox"]
    threading.Thread(target=_end_with_ray, args=(os.getppid(),), daemon=True).start()
    settings = task.run.config.train
    torch.set_num_threads(settings.threads)
    if settings.device == "cuda":
        torch.cuda.set_device(get_device())  # of several on this node; it counts by thread
    group = train.Group.joined(settings.device)
    try:
        return train.work(task, group, _Sender(mailbox))
    except train.StoppedError:
        return None
    except EmbedmillError as error:
        ray.get(mailbox.fail.remote(error))
        group.leave()
        return None
    except RuntimeError:
        # Torn off in an exchange: another worker may have left with an error of ours.
        if ray.get(mailbox.failed.remote()):
            return None
        raise


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
            num_workers=workers_of(config, task.run.config.run.partitions),  # type: ignore[arg-type]
            use_gpu=gpu,
            resources_per_worker={"CPU": config.threads, **({"GPU": 1} if gpu else {})},
        ),
        run_config=RunConfig(
            name="train",
            storage_path=folder,
            failure_config=FailureConfig(max_failures=config.max_failures),
        ),
    )
    killed = _killed_by_the_kernel()
    result = _watched(trainer, mailbox, progress)
    error = _forward(mailbox, progress)
    if error is not None:
        raise error
    if isinstance(result, BaseException):
        _explain(result, config, _killed_by_the_kernel() > killed)
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
    for line in mail.records:
        progress.record(line)
    if mail.latest is not None:
        done, total, unit, facts = mail.latest
        progress.update(done, total, unit, **facts)
    return mail.error


def _explain(error: BaseException, config: TrainConfig, killed: bool) -> NoReturn:
    """Raise what the workers' last failure means; `killed`: the kernel has ended processes."""
    ours = from_text(str(error))
    if ours is not None:
        raise ours from error
    place = _exhausted(error)
    if place or (killed and "SIGKILL" in str(error)):
        raise train.out_of_memory(place or "and the kernel ended it") from error
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    raise TrainingError(
        f"the workers failed {config.max_failures + 1} times, at last with: {lines[-1]}",
        where="train",
        todo="What was trained is kept: run the same command again to go on",
    ) from error


def _exhausted(error: BaseException) -> str:
    """Where Ray's memory monitor ended a worker, or '' where it did not."""
    failures = getattr(error, "worker_failures", {}).values()
    for failure in (error, *failures):
        if isinstance(failure, OutOfMemoryError) or "OutOfMemoryError" in str(failure):
            node = re.search(r"\(IP: ([^,)]+)", str(failure))
            share = re.search(r"was running was (\S+ / \S+) ", str(failure))
            used = f" when {share[1]} were in use" if share else ""
            return f"on node {node[1] if node else '?'}, and Ray ended it{used}"
    return ""


def _killed_by_the_kernel() -> int:
    """Processes of this machine that the kernel has ended for want of memory, ever."""
    try:
        lines = Path("/proc/vmstat").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))


if __name__ == "__main__":
    sys.exit(main())
