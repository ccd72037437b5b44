"""The train stage: checks before anything is scheduled, and the commit when all is done."""

from __future__ import annotations

import os

import torch

from embedmill.pipeline.config import TrainConfig
from embedmill.pipeline.errors import ConfigError, TrainingError
from embedmill.pipeline.log import Progress
from embedmill.pipeline.store.artifact import MANIFEST
from embedmill.pipeline.store.artifact_writer import Writer
from embedmill.pipeline.store.run import Run
from embedmill.pipeline.train.assembly import WorkerTask
from embedmill.pipeline.train.checkpoints import stored_slots
from embedmill.pipeline.train.checkpoints.adopt import adopt_checkpoints
from embedmill.pipeline.train.collectives import Group
from embedmill.pipeline.train.logs.trackers import check_trackers, with_trackers
from embedmill.pipeline.train.loop import TrainingResult, train_worker
from embedmill.pipeline.train.objectives import OBJECTIVES
from embedmill.pipeline.train.resources.available import (
    free_resources,
    launcher_of,
    local_workers,
    scratch_folder,
)
from embedmill.pipeline.train.resources.budget import budget_of, choose_tables, size_of
from embedmill.pipeline.train.short_training import torch_threads
from embedmill.pipeline.train.start import find_start
from embedmill.pipeline.train.trials import largest
from embedmill.schemas.train import HISTORY, LOG, MODEL, TRIALS, Epoch, Model, Search

__all__ = ["build", "check", "check_settings", "commit"]


def check_settings(run: Run) -> None:
    """Raise ConfigError for a tracker that is unknown, not installed, or cannot be used."""
    check_trackers(run)
    if run.config.train.start and not run.storage.exists(f"train/{MANIFEST}"):
        find_start(run)


def check(run: Run, progress: Progress) -> None:
    """Refuse a training that cannot succeed, before any worker starts.

    Raises:
        ConfigError: a tracker cannot be used, or a key needs validation events.
        TrainingError: there are no examples to train on.
        MachineError: it does not fit into memory or on disk.
    """
    config, shards = largest(run.config.train), run.artifact("shards")
    check_settings(run)
    if not shards.counters["train"]:
        raise TrainingError(
            "the split left no train events",
            where=shards.storage.root,
            todo="Lower shards.valid and shards.test",
        )
    OBJECTIVES[config.objective].source.check(shards)
    if not shards.counters["valid"]:
        _check_without_validation(config)
        progress.note("no validation events: the last epoch is kept")
        if run.config.train.objective == "auto":
            progress.note("so there are no trials: ials is trained, see `train.auto`")
    start, reason = find_start(run)
    if start is not None:
        progress.note(f"training starts from {start.run.storage.root}")
    elif reason:
        progress.note(reason)
    _check_resources(run, progress)


def _check_without_validation(config: TrainConfig) -> None:
    """Raise ConfigError for keys that need validation events."""
    if config.metric:
        raise ConfigError(
            f"'{config.metric}' cannot choose an epoch: there are no validation events",
            where="train.metric",
            todo="Raise shards.valid, or leave train.metric empty to keep the last epoch",
        )
    if config.refit:
        raise ConfigError(
            "there are no validation events to refit on",
            where="train.refit",
            todo="Raise shards.valid, or set train.refit = false",
        )


def _check_resources(run: Run, progress: Progress) -> None:
    """Raise MachineError where this machine is too small; nodes of a cluster are not known here."""
    if os.environ.get("RAY_ADDRESS") and launcher_of(run.config.train) == "ray":
        return
    run = Run(run.config.model_copy(update={"train": largest(run.config.train)}))
    budget = budget_of(size_of(run), run.config, local_workers(run.config))
    if choose_tables(budget, run.config, free_resources(run)) == "mapped":
        size = budget.files / 1e9
        progress.note(f"tables of {size:.1f} GB are mapped from files in {scratch_folder(run)}")
        if OBJECTIVES[run.config.train.objective].starts_spectral(run.config.train):
            key = run.config.train.keys.path("init")
            progress.note(f"their spectral start reads and writes them many times, which may take "
                          f"hours; {key} = 'normal' begins at once")  # fmt: skip


def commit(run: Run, out: Writer, result: TrainingResult) -> None:
    """Write the manifest over what the workers wrote, and remove the checkpoints."""
    config = result.train
    objective = OBJECTIVES[config.objective]
    out.add(result.files)
    out.write(LOG, out.storage.read(LOG), volatile=True)
    model = Model(
        objective=config.objective,
        similarity=objective.published_similarity(config),
        dim=config.dim,
        bias=objective.has_bias(config),
        mean=result.mean,
        users=result.users,
        items=result.items,
        partitions=run.config.run.partitions,
        best_epoch=result.best_epoch,
        metric=result.metric,
        refit=tuple(result.refit),
    )
    out.write_json(MODEL, model)
    out.write_json(HISTORY, [Epoch.model_validate(entry) for entry in result.history])
    if run.config.train.objective == "auto":
        chosen = config.model_dump(mode="json")
        out.write_json(TRIALS, Search(trials=result.trials, chosen=chosen))
    counters = {
        "epochs": len(result.history),
        "steps": result.steps,
        "pairs": result.pairs,
        "best_epoch": result.best_epoch,
        "refit_epochs": len(result.refit),
        "users": result.users,
        "items": result.items,
    }
    out.commit(counters, software={"torch": torch.__version__})
    stored_slots.discard(out.storage)


def build(run: Run, out: Writer, progress: Progress) -> None:
    """Train in this process, with one worker."""
    check(run, progress)
    adopt_checkpoints(run, out.storage)
    with with_trackers(run, progress) as tracked_progress:
        task, group = WorkerTask.of(run, out), Group.current(run.config.train.device)
        with torch_threads(run.config.train.threads):
            result = train_worker(task, group, tracked_progress)
    commit(run, out, result)
