"""The Ray that training and indices in shards run on: one that is named, or one of our own."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import shutil
import signal
import socket
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray._private import ray_constants

from embedmill.pipeline.config import TrainConfig
from embedmill.pipeline.errors import MachineError

__all__ = ["Demand", "joined", "workers_of"]

# Ray Train looks at its workers every 2 s unless told otherwise; an end is noticed so late too.
_QUIET = {
    "RAY_DISABLE_FAILURE_SIGNAL_HANDLER": "1",  # in its workers; see `_start`
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}

# A Ray of our own has one machine and nobody to take it away; each actor less starts sooner.
_LOCAL = {"RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0"}


@dataclass(frozen=True)
class Demand:
    """What a stage needs of a cluster: so many workers at least, of so many CPUs each."""

    stage: str
    workers: int
    cpus: int = 1
    gpu: bool = False

    @staticmethod
    def of_training(config: TrainConfig) -> Demand:
        """As the config says."""
        return Demand("train", config.worker_range[0], config.threads, config.device == "cuda")


@contextlib.contextmanager
def joined(demand: Demand) -> Iterator[str]:
    """A Ray to work on; yields a folder for its files, removed afterwards.

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
                _start(address, folder, demand)
            _check_size(demand)
            yield f"{folder}/fit"
    finally:
        if mine:
            ray.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


def _start(address: str, folder: str, demand: Demand) -> None:
    before = signal.getsignal(signal.SIGTERM)
    # At SIGTERM that handler prints a stack, and aborts if leaving takes long. The variable is read
    # as `ray` is imported, so here it would come too late.
    ray_constants.RAY_DISABLE_FAILURE_SIGNAL_HANDLER = True
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    try:
        if address:
            _knock(address)
            ray.init(address=address, **quiet)
            return
        ray.init(
            address="local",
            num_cpus=max(os.cpu_count() or 1, demand.workers * demand.cpus),
            include_dashboard=False,
            _temp_dir=folder,
            **quiet,
        )
    except SystemExit:  # by the handler that Ray has while it starts
        raise KeyboardInterrupt("terminated") from None
    except Exception as error:  # Ray raises all kinds here, its own and gRPC's among them
        what = f"Ray at {address} cannot be reached" if address else "Ray does not start"
        raise MachineError(
            f"{what}: {error}",
            where=demand.stage,
            todo="Check RAY_ADDRESS" if address else f"Or set {demand.stage}.launcher = 'inline'",
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


def workers_of(config: TrainConfig, partitions: int) -> int | tuple[int, int]:
    """How many workers to ask Ray for: a number, or least and greatest.

    More workers than partitions would own nothing.
    """
    least, most = config.worker_range
    if most is None:
        return max(1, min(_room(Demand.of_training(config)), partitions))
    return least if least == most else (least, most)


def _check_size(demand: Demand) -> None:
    room = _room(demand)
    if room < demand.workers:
        each = f"{demand.cpus} CPUs" if demand.cpus > 1 else "one CPU"
        each += " and one GPU" if demand.gpu else ""
        raise MachineError(
            f"{demand.stage}.workers = {demand.workers} need {each} each, "
            f"the Ray cluster has room for {room}",
            where=demand.stage,
            todo=f"Lower {demand.stage}.workers or add nodes",
        )


def _room(demand: Demand) -> int:
    """Workers that the nodes of the cluster have CPUs and GPUs for."""
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    has = [node["Resources"] for node in nodes if node["Alive"]]
    room = [int(node.get("CPU", 0) // demand.cpus) for node in has]
    if demand.gpu:
        room = [min(n, int(node.get("GPU", 0))) for n, node in zip(room, has, strict=True)]
    return sum(room)


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
