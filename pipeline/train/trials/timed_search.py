"""Trials of `embedmill tune`: in this process, as long as the user gives them."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch

from embedmill.pipeline.errors import ConfigError, TrainingError
from embedmill.pipeline.log import Progress
from embedmill.pipeline.store.run import Run
from embedmill.pipeline.train.assembly import WorkerTask
from embedmill.pipeline.train.collectives import Group
from embedmill.pipeline.train.resources.available import all_threads
from embedmill.pipeline.train.resources.budget import size_of
from embedmill.pipeline.train.trials.candidate import Candidate
from embedmill.pipeline.train.trials.climb import climb
from embedmill.pipeline.train.trials.grid import families, largest
from embedmill.pipeline.train.trials.run_trials import Trials, candidate_of, with_train
from embedmill.pipeline.train.trials.stored_trials import StoredTrials
from embedmill.schemas.checkpoints import TUNE
from embedmill.schemas.train import Trial

__all__ = ["Tuned", "tune_settings"]


@dataclass(frozen=True)
class Tuned:
    """What the trials found.

    Args:
        trials: all, the best first; those that diverged last.
        metric: that chose.
        chosen: the best candidate.
        epochs: to train it for, at most.
        complete: whether the search came to its end.
    """

    trials: list[Trial]
    metric: str
    chosen: Candidate
    epochs: int
    complete: bool


def tune_settings(run: Run, minutes: float, progress: Progress) -> Tuned:
    """Try objectives and settings on the validation part, for about so many minutes.

    Trials are kept in the run, and a later call goes on with the next one. The artifacts of the
    run are read only. It stops between trials: the last one may take longer, and at least one is
    finished.

    Args:
        run: with objective "auto"; its `dim` and `epochs` are the greatest that are tried.
        minutes: wall time.
        progress: gets a note for each trial.

    Raises:
        ConfigError: there are no validation events.
        TrainingError: every trial diverged.
    """
    end = time.monotonic() + 60 * minutes
    auto = run.config.train
    size = size_of(with_train(run, largest(auto)))
    if not size.valid:
        raise ConfigError(
            "trials are compared on validation events, and the split left none",
            where="shards.valid",
            todo="Raise shards.valid",
        )
    task, group = WorkerTask.of(run, run.writer("train")), Group.current(auto.device)
    stored = StoredTrials(run.storage, task.identity, group, TUNE)
    trials, threads = Trials(task, size, group, progress), torch.get_num_threads()
    torch.set_num_threads(all_threads(run.config))
    try:
        choice = trials.run(climb(auto, size), stored, lambda: time.monotonic() < end)
    finally:
        torch.set_num_threads(threads)
    metric = trials.metric
    ranked = sorted(trials.finished, key=lambda one: -one.metrics.get(metric, -1.0))
    if not ranked[0].metrics:
        raise TrainingError("every trial diverged", where="train")
    chosen = candidate_of(ranked[0])
    # One of the grid was trained shortly; its training is as long as that of `auto`.
    family = next(f for f in families(auto, size) if f.first[0].objective == chosen.objective)
    short = ranked[0].epochs == family.trial_epochs[0]
    epochs = family.epochs if short else ranked[0].epochs
    return Tuned(ranked, metric, chosen, epochs, choice is not None)
