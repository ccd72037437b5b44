"""Shards → tables: workers of this machine, or of a Ray cluster; their loop is plain torch.

    python jobs/train.py examples/movielens-100k.toml --set train.workers=4

With RAY_ADDRESS it uses that cluster (`ray job submit` sets it); otherwise it starts worker
processes on this machine, or trains in this process what is short. `train.launcher` names one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from embedmill.jobs.launch import Job, leave, main_of
from embedmill.pipeline import train
from embedmill.pipeline.config import Config
from embedmill.pipeline.log import Progress
from embedmill.pipeline.store.artifact_writer import Writer
from embedmill.pipeline.store.run import Run

__all__ = ["JOB", "build", "check", "forget", "main", "sources"]


def build(run: Run, out: Writer, progress: Progress) -> None:
    """Train with the launcher that the config names, and commit.

    Raises:
        MachineError: the cluster cannot be reached or is too small, or a worker ran out of memory.
        TrainingError: training is not possible, or workers failed too often; nothing is published.
    """
    launcher = train.launcher_of(run.config.train)
    if launcher == "inline":
        train.build(run, out, progress)
        return
    train.check(run, progress)
    train.adopt_checkpoints(run, out.storage)
    with train.with_trackers(run, progress) as tracked_progress:
        task = train.WorkerTask.of(run, out)
        task, trials, result = train.train_if_short(task, tracked_progress)
        if result is None:
            result = _LAUNCHERS[launcher](task, tracked_progress)
            result = replace(result, trials=result.trials or tuple(trials))
    train.commit(run, out, result)


def sources(run: Run) -> Mapping[str, Any]:
    """What the stage is built from beside its inputs: the run that training starts from."""
    return train.sources(run)


def check(config: Config) -> None:
    """Raise ConfigError for a tracker that is unknown, not installed, or cannot be used."""
    train.check_settings(Run(config))


def forget(run: Run) -> None:
    """Remove the checkpoints of an unfinished training."""
    train.discard_checkpoints(run)


def _on_ray(task: train.WorkerTask, progress: Progress) -> train.TrainingResult:
    from embedmill.jobs.ray_training import train_on_ray  # takes seconds to import

    return train_on_ray(task, progress)


_LAUNCHERS: Mapping[str, Callable[[train.WorkerTask, Progress], train.TrainingResult]] = {
    "processes": train.train_in_processes,
    "ray": _on_ray,
}

JOB = Job("train", build, sources, check, forget)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the stage from a command line; returns the exit code."""
    return main_of(JOB, argv)


if __name__ == "__main__":
    leave(main())
