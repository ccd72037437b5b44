"""The Ray cluster of training and of sharded indices: that of RAY_ADDRESS, or a local one."""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import secrets
import shutil
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray._private import ray_constants

from embedmill.jobs.launch import abandon
from embedmill.jobs.ray_leftovers import PREFIX, end_processes, name_driver, sweep
from embedmill.pipeline.config import TrainConfig
from embedmill.pipeline.errors import MachineError

__all__ = ["WorkerRequest", "check_ray", "ray_cluster", "worker_count"]

_SILENT = 20.0  # seconds that a cluster of others may refuse connections
_NEEDED = {ray_constants.PROCESS_TYPE_RAYLET, ray_constants.PROCESS_TYPE_GCS_SERVER}
_LOOK = 2.0  # seconds between two looks at it

# By default, Ray Train polls its workers every 2 s, and notices their end as late.
_VARIABLES = {
    "RAY_DISABLE_FAILURE_SIGNAL_HANDLER": "1",  # in its workers; see `_start`
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}

_LOCAL_VARIABLES = {
    # A local Ray is never preempted; without this actor it starts sooner.
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    # By default, its workers have niceness 15: beside other work they get a third of a core.
    "RAY_worker_niceness": "0",
}


@dataclass(frozen=True)
class WorkerRequest:
    """The workers that a stage needs of a cluster.

    Args:
        stage: its name, for error messages.
        workers: at least so many.
        cpus: of each worker.
        gpu: whether each needs a GPU.
    """

    stage: str
    workers: int
    cpus: int = 1
    gpu: bool = False

    @staticmethod
    def of_training(config: TrainConfig) -> WorkerRequest:
        """The workers of section train."""
        return WorkerRequest(
            "train", config.worker_range[0], config.threads, config.device == "cuda"
        )


@contextlib.contextmanager
def ray_cluster(request: WorkerRequest) -> Iterator[str]:
    """Connect to Ray, or start a local one; yields a folder for its files, removed afterwards.

    Raises:
        MachineError: it does not start, cannot be reached, or has too few CPUs or GPUs.
    """
    address = os.environ.get("RAY_ADDRESS", "")
    # Ray's sockets are below its folder, and the path of a socket has at most 107 bytes.
    base = "/tmp" if Path("/tmp").is_dir() else None
    folder = tempfile.mkdtemp(prefix=PREFIX, dir=base)
    name_driver(Path(folder))
    sweep(Path(folder).parent)
    own = not ray.is_initialized()
    try:
        if not address and not os.environ.keys() & {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"}:
            # Without a token, Ray writes one to the home folder. It is not reset, as Ray's threads
            # outlive a shutdown.
            os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
        with _environment(_VARIABLES if address else {**_VARIABLES, **_LOCAL_VARIABLES}):
            if own:
                _start(address, folder, request)
            _check_size(request)
            yield f"{folder}/fit"
    finally:
        if own and _ended():
            # Ray's own shutdown waits a minute for what is gone, and then ends this process.
            atexit.unregister(ray.shutdown)
            abandon("ray")
            end_processes(Path(folder))
        elif own:
            ray.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


def check_ray(stage: str) -> None:
    """Raise MachineError where a process of our own local Ray has ended, or the cluster is gone.

    Ray itself would end this process a minute later, without a word to the user.

    Args:
        stage: for the error.
    """
    ended, address = _ended(), os.environ.get("RAY_ADDRESS", "")
    if not ended and address and not _answers(address):
        ended = [f"at {address}"]
    if ended:
        raise MachineError(
            f"a process of Ray ended: {', '.join(ended)}",
            where=stage,
            todo="Run the same command again: it goes on where it stopped",
        )


def _ended() -> list[str]:
    """Which processes that a Ray of our own needs have ended; none for a cluster of others."""
    node: Any = ray._private.worker._global_node
    if node is None:
        return []
    return [str(name) for name, _ in node.dead_processes() if name in _NEEDED]


_answered: dict[str, float] = {}  # address → when something last listened there


def _answers(address: str) -> bool:
    """Whether something has listened at the address within the last seconds."""
    since = time.monotonic() - _answered.setdefault(address, time.monotonic() - _LOOK)
    if since >= _LOOK:
        try:
            _check_address(address)
        except OSError:
            return since < _SILENT
        _answered[address] = time.monotonic()
    return True


def _start(address: str, folder: str, request: WorkerRequest) -> None:
    before = signal.getsignal(signal.SIGTERM)
    # At SIGTERM, Ray's failure handler prints a stack, and aborts if the exit takes long. The
    # environment variable is read when `ray` is imported, which has happened already.
    ray_constants.RAY_DISABLE_FAILURE_SIGNAL_HANDLER = True
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    try:
        if address:
            _check_address(address)
            ray.init(address=address, **quiet)
            return
        ray.init(
            address="local",
            num_cpus=max(os.cpu_count() or 1, request.workers * request.cpus),
            include_dashboard=False,
            _temp_dir=folder,
            **quiet,
        )
    except SystemExit:  # raised by Ray's signal handler while it starts
        raise KeyboardInterrupt("terminated") from None
    except Exception as error:  # Ray raises exceptions of many types here, its own and gRPC's
        what = f"Ray at {address} cannot be reached" if address else "Ray does not start"
        raise MachineError(
            f"{what}: {error}",
            where=request.stage,
            todo="Check RAY_ADDRESS" if address else f"Or set {request.stage}.launcher = 'inline'",
        ) from error
    finally:
        # Ray installs a handler of SIGTERM; ours exits as at Ctrl-C.
        if before is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


def _check_address(address: str) -> None:
    """Raise OSError if nothing listens there: Ray's own client would end the process."""
    host, colon, port = address.rpartition(":")
    if colon and port.isdigit() and "//" not in host:
        socket.create_connection((host, int(port)), timeout=10).close()


def worker_count(config: TrainConfig, partitions: int) -> int | tuple[int, int]:
    """How many workers to request from Ray Train: a number, or the least and the greatest.

    At most as many as partitions where the cluster decides: others would own no rows.
    """
    least, most = config.worker_range
    if most is None:
        return max(1, min(_capacity(WorkerRequest.of_training(config)), partitions))
    return least if least == most else (least, most)


def _check_size(request: WorkerRequest) -> None:
    capacity = _capacity(request)
    if capacity < request.workers:
        each = f"{request.cpus} CPUs" if request.cpus > 1 else "one CPU"
        each += " and one GPU" if request.gpu else ""
        raise MachineError(
            f"{request.stage}.workers = {request.workers} need {each} each, "
            f"the Ray cluster has room for {capacity}",
            where=request.stage,
            todo=f"Lower {request.stage}.workers or add nodes",
        )


def _capacity(request: WorkerRequest) -> int:
    """How many workers the nodes of the cluster have CPUs and GPUs for."""
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    resources = [node["Resources"] for node in nodes if node["Alive"]]
    workers = [int(node.get("CPU", 0) // request.cpus) for node in resources]
    if request.gpu:
        gpus = [int(node.get("GPU", 0)) for node in resources]
        workers = [min(pair) for pair in zip(workers, gpus, strict=True)]
    return sum(workers)


@contextlib.contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    """Set environment variables that the user has not set, and remove them afterwards."""
    added = {k: v for k, v in variables.items() if k not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for key in added:
            os.environ.pop(key, None)
