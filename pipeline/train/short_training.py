"""Short trainings in the driver's process: workers would take longer to start than to train."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace

import torch

from embedmill.pipeline.log import Progress
from embedmill.pipeline.train.assembly import WorkerTask
from embedmill.pipeline.train.collectives import Group
from embedmill.pipeline.train.loop import train_worker
from embedmill.pipeline.train.publish import TrainingResult
from embedmill.pipeline.train.resources.available import all_threads, launcher_of
from embedmill.pipeline.train.resources.budget import size_of
from embedmill.pipeline.train.trials import choose_settings, largest
from embedmill.pipeline.train.trials.counted_cost import training_cost
from embedmill.pipeline.train.trials.run_trials import with_train
from embedmill.schemas.train import Trial

__all__ = ["SHORT_EVENTS", "torch_threads", "train_if_short"]

_SHORT = 40.0  # counted seconds of a core; each worker takes a few seconds to start
SHORT_EVENTS = 2_000_000  # train events that this process may read
# Threads of one process serve their few and large products as well as workers do.
_SOLVED = ("spectral", "ials")


def train_if_short(
    task: WorkerTask, progress: Progress
) -> tuple[WorkerTask, list[Trial], TrainingResult | None]:
    """Train here what is short, and run the trials of objective "auto" here, if the log is small.

    The result is the one that workers would have: a training may go on here or there.

    Returns:
        the task, with the objective that was chosen; the trials; and the result, None where
        workers have to train.
    """
    config = task.run.config.train
    here = config.launcher == "auto" and launcher_of(config) == "processes"
    size = size_of(with_train(task.run, largest(config)))
    if not here or config.device != "cpu" or size.train > SHORT_EVENTS:
        return task, [], None
    group = Group.current()
    with torch_threads(all_threads(task.run.config)):
        task, trials = choose_settings(task, group, progress)
        chosen = task.run.config.train
        if chosen.objective not in _SOLVED or training_cost(chosen, size) > _SHORT:
            return task, trials, None
        result = train_worker(task, group, progress)
        return task, trials, replace(result, trials=tuple(trials))


@contextlib.contextmanager
def torch_threads(number: int) -> Iterator[None]:
    """torch uses so many threads meanwhile."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)
