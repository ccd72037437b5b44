"""The base vocabulary: the one of an earlier run whose rows this run keeps.

It is named by `vocab.previous`, found and checked here, and identified by the hash of its
content. Its spec (`schemas.vocab.SPEC`) has what a later run has to know: the columns that its
ids come from, its rows, its shared rows, and the seed of the hash by which ids share them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from embedmill.pipeline.config import Config
from embedmill.pipeline.errors import ConfigError, MissingArtifactError, StaleArtifactError
from embedmill.pipeline.store.artifact import Artifact, read_manifest
from embedmill.pipeline.store.publication import date_of, is_earlier, publications
from embedmill.pipeline.store.run import Run
from embedmill.pipeline.store.storage import Storage
from embedmill.pipeline.views.vocab import Vocab
from embedmill.schemas.stages import STAGES
from embedmill.schemas.vocab import IdColumns

__all__ = [
    "PUBLISHED",
    "check_base_vocabulary",
    "check_version",
    "find_base_vocabulary",
    "gone_runs",
    "id_columns",
    "source_stamps",
]

PUBLISHED = "published"  # the value of `vocab.previous` that names the published run
_STAMP = "vocab.previous"


def id_columns(config: Config) -> IdColumns:
    """The columns of the raw log that ids come from."""
    return IdColumns(user=config.events.user, item=config.events.item)


def source_stamps(run: Run) -> Mapping[str, Any]:
    """The content hash of the base vocabulary, for the fingerprint of the stage `vocab`.

    Where the base lies and when it was made is no part of it. `vocab.previous = "published"`
    means the run that was published when the stage was built: publishing another run later does
    not make a finished stage stale.

    Raises:
        MissingArtifactError, ConfigError, StaleArtifactError: see `find_base_vocabulary`.
    """
    finished = run.manifest("vocab")
    if finished is not None and run.config.vocab.previous == PUBLISHED:
        return finished.sources
    base = find_base_vocabulary(run)
    return {} if base is None else {_STAMP: base.manifest.content}


def check_base_vocabulary(config: Config) -> None:
    """Check, before anything runs, that the base vocabulary can be used with a config.

    Raises:
        MissingArtifactError, ConfigError, StaleArtifactError: see `find_base_vocabulary`.
    """
    source_stamps(Run(config))


def find_base_vocabulary(run: Run) -> Artifact | None:
    """The vocabulary whose rows a run keeps, or None if the run begins a new one.

    Raises:
        MissingArtifactError: there is no such run, or its vocabulary has not finished.
        ConfigError: it has other columns or other shared rows, or is this run itself.
        StaleArtifactError: another version of this program wrote it.
    """
    name = run.config.vocab.previous
    folder = _published_folder(run) if name == PUBLISHED else _named_folder(run, name)
    if not folder:
        return None
    where = f"vocab.previous, {folder}"
    if folder.rstrip("/") == run.storage.root.rstrip("/"):
        raise ConfigError(
            "a run cannot continue itself",
            where=where,
            todo="Name the run before it, or give this one another run.name",
        )
    storage = Storage(folder)
    manifest = read_manifest(storage.at("vocab"))
    if manifest is None:
        is_run = storage.exists("config.json")
        raise MissingArtifactError(
            "the previous run has no finished vocabulary" if is_run else "there is no run",
            where=where,
            todo="Finish it with `embedmill run`, or name another"
            if is_run
            else f"Give a run's name below {run.config.run.root}, or its folder or URL",
        )
    base = Artifact.of("vocab", storage.at("vocab"), manifest)
    _check_compatible(base, run.config, where)
    return base


def check_version(vocab: Artifact) -> None:
    """Raise StaleArtifactError if another version of this program wrote a vocabulary."""
    if not vocab.readable:
        raise StaleArtifactError(
            f"the contract of this vocabulary is version {vocab.manifest.version}, "
            f"this program reads version {STAGES['vocab'].version}",
            where=vocab.storage.root,
            todo="Build that run anew with --rebuild",
        )


def gone_runs(run: Run) -> list[str]:
    """Names of published runs that this run would continue, had they not been deleted."""
    return _published_base(run)[1] if run.config.vocab.previous == PUBLISHED else []


def _published_folder(run: Run) -> str:
    """The folder of the run that `vocab.previous = "published"` stands for, "" for none.

    Raises:
        MissingArtifactError: it was deleted, and `vocab.previous_gone` names no other.
    """
    folder, gone = _published_base(run)
    allowed = run.config.vocab.previous_gone
    if not gone or (folder and allowed == "last"):
        return folder
    if allowed == "new":
        return ""
    raise MissingArtifactError(
        f"the published run '{gone[0]}' was deleted, or has no vocabulary"
        + (", and no run that was published before it is left" if allowed == "last" else ""),
        where=f"vocab.previous, {_below_root(run, gone[0])}",
        todo="Set vocab.previous_gone = 'new' to begin a new vocabulary, or name another run",
    )


def _published_base(run: Run) -> tuple[str, list[str]]:
    """The folder of the last published run that is not newer than this one and is still there.

    A run that is for an earlier date than the published one continues the last one before its own
    date, and the published one if there is none. If this run itself was published, the base that
    it was built on comes next.

    Returns:
        the folder, "" for none; and the names of runs that come before it and are gone.
    """
    root, date = run.config.run.root, date_of(run.config)
    gone: list[str] = []
    newer = ""
    for entry in publications(root):
        is_own = entry.run == run.config.run.name
        folder = entry.base_run or "" if is_own else _below_root(run, entry.run)
        if not folder:
            return "", gone
        if not is_own and is_earlier(date, entry.date):
            newer = newer or folder
            continue
        if read_manifest(Storage(folder).at("vocab")) is not None:
            return folder, gone
        gone.append(folder.rpartition("/")[2])
    return ("", gone) if gone or not newer else (newer, [])


def _named_folder(run: Run, name: str) -> str:
    """The folder of a run given by its name, or as a folder or URL; "" for none."""
    return name.rstrip("/") if "/" in name or not name else _below_root(run, name)


def _below_root(run: Run, name: str) -> str:
    return f"{run.config.run.root.rstrip('/')}/{name}"


def _check_compatible(base: Artifact, config: Config, where: str) -> None:
    """Raise unless a run with this config can keep the rows of a vocabulary."""
    check_version(base)
    spec = Vocab(base).spec
    for side, column in id_columns(config):
        base_column = getattr(spec.columns, side)
        if base_column != column:
            raise ConfigError(
                f"the previous run's {side}s come from column '{base_column}', "
                f"events.{side} is '{column}'",
                where=where,
                todo="Continue a run over the same columns, or begin a new vocabulary",
            )
    shared = spec.users.shared
    if shared and shared != config.vocab.oov_rows:
        raise ConfigError(
            f"the previous run has {shared:,} shared rows per side, which are reserved once; "
            f"vocab.oov_rows is {config.vocab.oov_rows:,}",
            where=where,
            todo=f"Set vocab.oov_rows = {shared}, or begin a new vocabulary",
        )
