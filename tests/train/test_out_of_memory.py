"""A worker that runs out of memory: one sentence, and nobody waits for it."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest
import torch
from ray.exceptions import OutOfMemoryError
from ray.train import WorkerGroupError

import embedmill.jobs.ray_training
from embedmill.pipeline import train
from embedmill.pipeline.config import parse
from embedmill.pipeline.errors import MachineError, TrainingError
from embedmill.pipeline.log import Quiet
from embedmill.pipeline.store.run import Run
from embedmill.pipeline.train.resources.out_of_memory import catch_out_of_memory
from tests.support.ranks import run_ranks
from tests.support.runs import planted
from tests.support.worlds import PlantedWorld, config_tree


def limited(run: Run, mib: int) -> train.TrainingResult:
    """Rank 1 may have so many MiB more than it has."""
    group = train.Group.current()
    if group.rank == 1:
        now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (now + (mib << 20), resource.RLIM_INFINITY))
    return train.train_worker(train.WorkerTask.of(run, run.writer("train")), group, Quiet())


def test_a_worker_without_memory_says_so_and_the_others_do_not_wait(tmp_path: Path) -> None:
    world = PlantedWorld(users=6000, events_per_user=3)
    settings = {"dim": 4096, "optimizer": "adam", "tables": "memory", "batch_size": 2000}
    run = planted(tmp_path, world, train=settings)
    # Half of 6,000 rows of 4,096 floats, three times for Adam, is 140 MiB.
    left, starved = run_ranks(limited, 2, tmp_path, run, 100)
    assert isinstance(starved, MachineError), starved
    assert starved.exit_code == 7
    assert "a worker ran out of memory reading its events and making its tables" in str(starved)
    assert "Set train.tables = 'mapped'" in str(starved)
    assert isinstance(left, RuntimeError), left
    assert run.manifest("train") is None


def test_only_a_lack_of_memory_is_called_so() -> None:
    with (
        pytest.raises(MachineError, match="out of memory in epoch 2, step 7"),
        catch_out_of_memory(lambda: "in epoch 2, step 7"),
    ):
        torch.empty(1 << 60)
    with pytest.raises(MachineError, match="out of memory"), catch_out_of_memory(lambda: ""):
        bytearray(1 << 60)
    with pytest.raises(RuntimeError, match="size"), catch_out_of_memory(lambda: ""):
        torch.ones(2) @ torch.ones(3)


def test_what_rays_memory_monitor_says() -> None:
    text = (
        "Task was killed due to the node running low on memory.\n"
        "Memory on the node (IP: 10.0.0.7, ID: 4f2) where the task (actor ID: 8c, "
        "name=RayTrainWorker.__init__, pid=812, memory used=30.10GB) was running was "
        "31.9GB / 32.0GB (0.996), which exceeds the memory usage threshold of 0.95. Ray killed "
        "this worker (ID: 77) because it was the most recently scheduled task"
    )
    config = parse(config_tree("runs", "log.tsv")).train
    failed = WorkerGroupError("a worker died", {1: OutOfMemoryError(text)})
    with pytest.raises(MachineError) as stop:
        embedmill.jobs.ray_training._raise_failure(failed, config, killed=False)
    assert "ran out of memory on node 10.0.0.7" in str(stop.value)
    assert "when 31.9GB / 32.0GB were in use" in str(stop.value)


def test_what_the_kernel_has_ended() -> None:
    config = parse(config_tree("runs", "log.tsv")).train
    died = RuntimeError("Worker exit type: SYSTEM_ERROR. (1) The process is killed by SIGKILL")
    failed = WorkerGroupError(str(died), {0: died})
    with pytest.raises(MachineError, match="out of memory and the kernel ended it"):
        embedmill.jobs.ray_training._raise_failure(failed, config, killed=True)
    with pytest.raises(TrainingError, match="the workers failed 4 times"):
        embedmill.jobs.ray_training._raise_failure(failed, config, killed=False)
