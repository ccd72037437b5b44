"""Which run a training starts from, and what follows for its settings.

The run is identified by the content of its tables and of its vocabulary, which are part of the
fingerprint of the stage: neither where it lies nor when it was made matters.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from embedmill.pipeline.config import TrainConfig
from embedmill.pipeline.config.objectives import readers_of
from embedmill.pipeline.errors import ConfigError, EmbedmillError
from embedmill.pipeline.store.run import Run, open_run
from embedmill.pipeline.train.fold_in import trained_with
from embedmill.pipeline.views.earlier_run import PUBLISHED, earlier_folder
from embedmill.pipeline.views.items import ItemMetadata
from embedmill.schemas.manifest import digest

__all__ = ["Start", "find_start", "sources", "started_config"]

_SOURCE = "train.start"
_DESCRIBED = "train.start.items"
_QUARTER = 4
_SHOWN_USERS = 1000
# Settings of a model: what a start must share with the training that goes on from it.
_MODEL = ("objective", "dim", "similarity", "bias")
_CHOSEN_BY_AUTO = ("spectral", "ials", "softmax")
_SECTIONS = ("auto", "smoothing", "ials", "ccl", "item2vec", "spectral")


@dataclass(frozen=True)
class Start:
    """A finished run whose tables a training starts from, and section train it was trained with.

    `continued`: that run itself started from another.
    """

    run: Run
    config: TrainConfig
    content: str
    continued: bool = False


def find_start(run: Run) -> tuple[Start | None, str]:
    """The run that `train.start` names, or None and why there is none.

    The reason is empty where the config names none, or names the published run and there is none.

    Raises:
        ConfigError: it cannot be used, and `train.start_fallback` is "refuse".
    """
    config, reason = run.config.train, ""
    folder = earlier_folder(run, config.start)
    if not folder:
        return None, ""
    try:
        start = _opened(run, folder)
        reason = _unusable(config, start.config)
    except EmbedmillError as error:
        reason = error.what
    if not reason:
        return start, ""
    if config.start_fallback == "refuse":
        raise ConfigError(
            f"training cannot start from {folder}: {reason}",
            where="train.start",
            todo="Name another run, or set train.start_fallback = 'cold' to train anew then",
        )
    return None, f"not started from {folder}: {reason}"


def sources(run: Run) -> Mapping[str, Any]:
    """The content of the run that training starts from, for the fingerprint of the stage.

    A finished stage keeps what it was built from where that was the published run, or is gone.
    """
    if not run.config.train.start:
        return {}
    manifest = run.manifest("train")
    if manifest is not None and run.config.train.start == PUBLISHED:
        return manifest.sources
    try:
        start, reason = find_start(run)
    except ConfigError:
        if manifest is None:
            raise
        return manifest.sources
    if manifest is not None and reason:
        return manifest.sources
    if start is None:
        return {}
    # New items without events begin from it.
    events = run.manifest("events")
    described = ItemMetadata(run.artifact("events")).sha256 if events is not None else ""
    return {_SOURCE: start.content} | ({_DESCRIBED: described} if described else {})


def started_config(config: TrainConfig, start: Start) -> TrainConfig:
    """Section train of a training that starts from a run.

    `auto` takes what was chosen for that run, without trials. There are `start_epochs` epochs, or
    a quarter of `epochs`; spectral takes `start_passes` passes. A single epoch is validated on
    fewer users.
    """
    fewer = config.start_epochs
    if config.objective == "auto":
        epochs = start.config.epochs if start.continued else _quarter(start.config.epochs)
        replay = config.replay
        config = _chosen(config, start.config)
        if config.keys.reads("replay"):
            config = config.model_copy(update={"replay": replay})
    else:
        epochs = _quarter(config.epochs)
    passes = min(config.spectral.passes, config.spectral.start_passes)
    spectral = config.spectral.model_copy(update={"passes": passes})
    epochs = fewer or epochs
    # Of one epoch there is nothing to choose: validation only says how good it is.
    users = min(config.valid_users, _SHOWN_USERS) if epochs == 1 else config.valid_users
    changed = {"epochs": epochs, "spectral": spectral, "valid_users": users}
    return config.model_copy(update=changed)


def _quarter(epochs: int) -> int:
    return -(-epochs // _QUARTER)


def _opened(run: Run, folder: str) -> Start:
    """The run in a folder; raises an EmbedmillError where it is not finished or cannot be read."""
    if folder.rstrip("/") == run.storage.root.rstrip("/"):
        raise ConfigError("it is this run itself")
    earlier = open_run(folder)
    train, vocab = earlier.artifact("train"), earlier.artifact("vocab")
    content = digest([vocab.manifest.content, train.manifest.content])
    config = trained_with(train, earlier.config)
    return Start(earlier, config, content, _SOURCE in train.manifest.sources)


def _unusable(config: TrainConfig, before: TrainConfig) -> str:
    """Why a training cannot start from a run with other settings; "" where it can."""
    if config.objective == "auto" and before.objective not in _CHOSEN_BY_AUTO:
        return f"its objective is {before.objective!r}, which 'auto' does not choose"
    if config.objective == "auto":
        return "" if before.dim <= config.dim else f"it has {before.dim} dimensions, more than now"
    for key in _MODEL:
        then, now = getattr(before, key), getattr(config, key)
        if then != now and (key in ("objective", "dim") or config.keys.reads(key)):
            return f"its {config.keys.path(key)} is {then!r}, here it is {now!r}"
    return ""


def _chosen(config: TrainConfig, before: TrainConfig) -> TrainConfig:
    """The settings of a model that was chosen before, with today's keys of every objective."""
    own = {
        name: getattr(config, name)
        for name in TrainConfig.model_fields
        if name not in (*_SECTIONS, *_MODEL, "epochs") and not readers_of(name)
    }
    return before.model_copy(update=own)
