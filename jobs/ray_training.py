"""Training on Ray: Ray Train starts and restarts the workers; their loop is plain torch."""

from __future__ import annotations

import os
import re
import threading
import time
from typing import Any, NoReturn

import ray
import torch
from ray.exceptions import GetTimeoutError, OutOfMemoryError, RayError
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer, get_device
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from embedmill.jobs.cluster import WorkerRequest, check_ray, ray_cluster, worker_count
from embedmill.jobs.ray_mailbox import Mailbox, Messages
from embedmill.pipeline import train
from embedmill.pipeline.config import TrainConfig
from embedmill.pipeline.errors import EmbedmillError, MachineError, from_text
from embedmill.pipeline.log import Progress, SentProgress
from embedmill.pipeline.memory import oom_kills

__all__ = ["train_on_ray"]

_INTERVAL = 0.2  # seconds between two looks at the mailbox, or at the driver
_ANSWER = 5.0  # seconds in which the mailbox answers, or the processes of Ray are looked at


def train_on_ray(task: train.WorkerTask, progress: Progress) -> train.TrainingResult:
    """Train on the cluster of RAY_ADDRESS, or on a Ray of our own that ends with the training.

    Raises:
        EmbedmillError: as a worker did.
        MachineError: the cluster cannot be reached or is too small, a worker ran out of memory, or
            a process of Ray itself ended.
        TrainingError: workers failed too often.
    """
    with ray_cluster(WorkerRequest.of_training(task.run.config.train)) as folder:
        try:
            return _fit(task, folder, progress)
        except KeyboardInterrupt as stop:
            if stop.args:  # a SIGTERM, which Ray sends as well where its raylet is gone
                check_ray("train")
            raise
        except RayError as error:  # of Ray's own processes: those of workers end in a result
            lines = str(error).strip().splitlines()
            raise MachineError(
                f"a process of Ray ended: {lines[0] if lines else type(error).__name__}",
                where="train",
                todo="Run the same command again: it resumes at the last checkpoint",
            ) from error


def _run_worker(config: dict[str, Any]) -> train.TrainingResult | None:
    """A worker's function.

    It sends errors of Embedmill to the mailbox and does not raise them: Ray would restart the
    workers, and they would fail again.
    """
    task, mailbox = config["task"], config["mailbox"]
    threading.Thread(target=_exit_with_ray, args=(os.getppid(),), daemon=True).start()
    settings = task.run.config.train
    torch.set_num_threads(settings.threads)
    if settings.device == "cuda":
        torch.cuda.set_device(get_device())  # which of the node's; the device is per thread
    group = train.Group.current(settings.device)
    # The mailbox answers each call later: no worker waits for it.
    progress = SentProgress(mailbox.update.remote, mailbox.note.remote, mailbox.record.remote)
    try:
        return train.train_worker(task, group, progress)
    except train.StoppedError:
        return None
    except EmbedmillError as error:
        ray.get(mailbox.fail.remote(error))
        group.leave()
        return None
    except RuntimeError:
        # An exchange was cut off: another worker may have left after an error of Embedmill.
        if ray.get(mailbox.failed.remote()):
            return None
        raise


def _exit_with_ray(parent: int) -> None:
    """End this process when Ray, its parent, is gone, as after a `kill -9` of the driver.

    Ray would end it too, but late: until then it would write checkpoints where the workers of
    the next attempt write theirs.
    """
    while os.getppid() == parent:
        time.sleep(_INTERVAL)
    os._exit(1)


def _fit(task: train.WorkerTask, folder: str, progress: Progress) -> train.TrainingResult:
    config = task.run.config.train
    # On the driver's node, as Ray's own controller: the loss of another one ends workers only.
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    mailbox = ray.remote(Mailbox).options(num_cpus=0, scheduling_strategy=here).remote()
    gpu = config.device == "cuda"
    trainer = TorchTrainer(
        _run_worker,  # type: ignore[arg-type]
        train_loop_config={"task": task, "mailbox": mailbox},
        torch_config=TorchConfig(backend="nccl" if gpu else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=worker_count(config, task.run.config.run.partitions),  # type: ignore[arg-type]
            use_gpu=gpu,
            resources_per_worker={"CPU": config.threads, **({"GPU": 1} if gpu else {})},
        ),
        run_config=RunConfig(
            name="train",
            storage_path=folder,
            failure_config=FailureConfig(max_failures=config.max_failures),
        ),
    )
    killed = oom_kills()
    result = _fit_in_thread(trainer, mailbox, progress)
    error = _forward(mailbox, progress)
    if error is not None:
        raise error
    if isinstance(result, BaseException):
        _raise_failure(result, config, killed=oom_kills() > killed)
    returned: train.TrainingResult = result.return_value
    return returned


def _fit_in_thread(trainer: TorchTrainer, mailbox: Any, progress: Progress) -> Any:
    """The trainer's result or exception; it runs in a thread, so that Ctrl-C is raised here."""
    results: list[Any] = []

    def fit() -> None:
        try:
            results.append(trainer.fit())
        except BaseException as error:
            results.append(error)

    thread = threading.Thread(target=fit, name="ray-train", daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(_INTERVAL)
        check_ray("train")
        try:
            _forward(mailbox, progress)
        except GetTimeoutError:
            continue
    check_ray("train")
    return results[0]


def _forward(mailbox: Any, progress: Progress) -> EmbedmillError | None:
    """Pass on the workers' messages; returns the error that ends training, if any."""
    messages: Messages = ray.get(mailbox.take.remote(), timeout=_ANSWER)
    for text in messages.notes:
        progress.note(text)
    for line in messages.records:
        progress.record(line)
    if messages.latest is not None:
        done, total, unit, facts = messages.latest
        progress.update(done, total, unit, **facts)
    return messages.error


def _raise_failure(error: BaseException, config: TrainConfig, *, killed: bool) -> NoReturn:
    """Raise the error for the user.

    Args:
        error: the workers' last failure.
        config: section train.
        killed: the kernel has killed processes for lack of memory meanwhile.
    """
    own_error = from_text(str(error))
    if own_error is not None:
        raise own_error from error
    where = _out_of_memory_node(error)
    if where or (killed and "SIGKILL" in str(error)):
        raise train.out_of_memory(where or "and the kernel ended it") from error
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    raise train.workers_failed(config.max_failures + 1, lines[-1]) from error


def _out_of_memory_node(error: BaseException) -> str:
    """The node on which Ray's memory monitor ended a worker, in words; '' if it did not."""
    failures = getattr(error, "worker_failures", {}).values()
    for failure in (error, *failures):
        if isinstance(failure, OutOfMemoryError) or "OutOfMemoryError" in str(failure):
            node = re.search(r"\(IP: ([^,)]+)", str(failure))
            share = re.search(r"was running was (\S+ / \S+) ", str(failure))
            used = f" when {share[1]} were in use" if share else ""
            return f"on node {node[1] if node else '?'}, and Ray ended it{used}"
    return ""
