"""The train stage: checks before anything is scheduled, and the commit when all is done."""

from __future__ import annotations

import os

import torch

from embedmill.pipeline.config import TrainConfig
from embedmill.pipeline.errors import ConfigError, TrainingError
from embedmill.pipeline.log import Progress
from embedmill.pipeline.store.artifact import Writer
from embedmill.pipeline.store.run import Run
from embedmill.pipeline.train.collectives import Group
from embedmill.pipeline.train.logs import step_log
from embedmill.pipeline.train.logs.trackers import check_trackers, tracked
from embedmill.pipeline.train.loop import Outcome, work
from embedmill.pipeline.train.objectives.objectives import (
    OBJECTIVES,
    begins_spectral,
    has_bias,
    is_smoothed,
    similarity_of,
)
from embedmill.pipeline.train.resources.available import free_now, scratch_of, workers_here
from embedmill.pipeline.train.resources.budget import demand_of, fitting, size_of
from embedmill.pipeline.train.tables import checkpoint
from embedmill.pipeline.train.trainer import Task

__all__ = ["build", "check", "check_settings", "commit", "discard_checkpoints"]


def check_settings(run: Run) -> None:
    """Raise ConfigError for a tracker that is unknown or not installed."""
    check_trackers(run)


def check(run: Run, progress: Progress) -> None:
    """Refuse what cannot be trained, before any worker starts.

    Raises:
        ConfigError: an unknown name, or settings that do not go together.
        TrainingError: no train events.
        MachineError: it does not fit into memory or on disk.
    """
    config, shards = run.config.train, run.artifact("shards")
    check_settings(run)
    if not shards.counters["train"]:
        raise TrainingError(
            "the split left no train events",
            where=shards.storage.root,
            todo="Lower shards.valid and shards.test",
        )
    if OBJECTIVES[config.objective].pairs and not shards.counters["pairs"]:
        raise TrainingError(
            "no session has two items, so there are no pairs",
            where=shards.storage.root,
            todo="Raise shards.pairs.session_gap_minutes and window_minutes, or set them to 0",
        )
    if not shards.counters["valid"]:
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
        progress.note("no validation events: the last epoch is kept")
    _check_room(run, progress)


def _check_room(run: Run, progress: Progress) -> None:
    """Refuse what this machine has no room for. A cluster's nodes are not known here."""
    if os.environ.get("RAY_ADDRESS") and run.config.train.launcher == "ray":
        return
    demand = demand_of(size_of(run), run.config, workers_here(run.config))
    if fitting(demand, run.config, free_now(run)) == "mapped":
        held = demand.files / 1e9
        progress.note(f"tables of {held:.1f} GB are mapped from files in {scratch_of(run)}")
        if begins_spectral(run.config.train):
            key = run.config.train.keys.path("init")
            progress.note(f"their spectral start reads and writes them many times, which may take "
                          f"hours; {key} = 'normal' begins at once")  # fmt: skip


def commit(run: Run, out: Writer, outcome: Outcome) -> None:
    """Seal what the workers wrote, and remove the checkpoints."""
    config = run.config.train
    out.add(outcome.files)
    out.write(step_log.FILE, out.storage.read(step_log.FILE), volatile=True)
    model = {
        "objective": config.objective,
        "similarity": _published_similarity(config),
        "dim": config.dim,
        "bias": has_bias(config),
        "mean": outcome.mean,
        "users": outcome.users,
        "items": outcome.items,
        "partitions": run.config.run.partitions,
        "best_epoch": outcome.best_epoch,
        "metric": outcome.metric,
        "refit": outcome.refit,
    }
    out.write_json("model.json", model)
    out.write_json("history.json", outcome.history)
    counters = {
        "epochs": len(outcome.history),
        "steps": outcome.steps,
        "pairs": outcome.pairs,
        "best_epoch": outcome.best_epoch,
        "refit_epochs": len(outcome.refit),
        "users": outcome.users,
        "items": outcome.items,
    }
    out.commit(counters, software={"torch": torch.__version__})
    checkpoint.discard(out.storage)


def _published_similarity(config: TrainConfig) -> str:
    """How the published tables are compared: smoothed ones as they are, lengths and all."""
    if is_smoothed(config):
        return "dot"
    return "cosine" if OBJECTIVES[config.objective].pairs else similarity_of(config)


def build(run: Run, out: Writer, progress: Progress) -> None:
    """Train in this process, with one worker."""
    check(run, progress)
    config = run.config.train
    threads = torch.get_num_threads()
    torch.set_num_threads(config.threads)
    try:
        with tracked(run, progress) as told:
            outcome = work(Task.of(run, out), Group.joined(config.device), told)
    finally:
        torch.set_num_threads(threads)
    commit(run, out, outcome)


def discard_checkpoints(run: Run) -> None:
    """Forget a training that was stopped half-way, to begin anew."""
    checkpoint.discard(run.storage.at("train"))
