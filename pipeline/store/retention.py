"""Which runs below a root are needed, and the removal of the others.

A run is kept that is published, that a rollback returns to, pinned (a file `PINNED` in its folder),
unfinished (a job may be at work on it), one of the newest, younger than an age, the base of deltas
below the root, or continued by one of these; and what an unfinished run is to start from or to be
aligned to. Before anything of a run is removed a file `REMOVED` is written into its folder: a
removal that was interrupted is finished by the next one, and no reader takes what is left for a
run.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from embedmill.pipeline.errors import ArtifactError, EmbedmillError
from embedmill.pipeline.store.artifact import MANIFEST, read_manifest
from embedmill.pipeline.store.lease import drive
from embedmill.pipeline.store.publication import publications
from embedmill.pipeline.store.run import open_run, published
from embedmill.pipeline.store.storage import Storage, file_system
from embedmill.pipeline.store.stored_json import UNREADABLE
from embedmill.schemas.checkpoints import FOLDER as CHECKPOINTS
from embedmill.schemas.run import CONFIG
from embedmill.schemas.stages import STAGES
from embedmill.schemas.vocab import BASE

__all__ = ["PINNED", "StoredRun", "plan_removal", "remove"]

PINNED = "pinned"  # an empty file of this name in a run's folder
REMOVED = "removed"


@dataclass(frozen=True)
class StoredRun:
    """A run below a root: why it is kept, empty where it is not, and its bytes.

    `created` is when its last stage finished (ISO 8601, UTC), empty for an unfinished run.
    """

    folder: str
    name: str
    created: str
    base: str
    kept: str = ""
    bytes: int = 0


def plan_removal(
    root: str,
    *,
    keep: int,
    older_than: float = 0.0,
    rollbacks: int = 1,
    now: datetime | None = None,
) -> list[StoredRun]:
    """All runs below a root, the newest first, each with the reason why it is kept, if any.

    Args:
        root: folder or URL of the runs.
        keep: how many finished runs are kept in any case, the newest ones.
        older_than: days; younger runs are kept.
        rollbacks: how many runs are kept that were published before the published one.
        now: the time, for tests.

    Raises:
        CorruptArtifactError: `published.json` cannot be read: nothing may be removed then.
    """
    pointer = published(root)
    earlier = _rollback_targets(root, rollbacks)
    chained = _delta_bases(root)
    found = sorted(_runs(root), key=lambda run: (run.created, run.name), reverse=True)
    oldest = ((now or datetime.now(UTC)) - timedelta(days=older_than)).isoformat()
    kept: dict[str, str] = {}
    newest = 0
    for run in found:
        storage = Storage(run.folder)
        if storage.exists(REMOVED):
            continue
        newest += bool(run.created)
        if pointer is not None and pointer.run == run.name:
            kept[run.name] = "published"
        elif run.name in earlier:
            kept[run.name] = "a rollback returns to it"
        elif storage.exists(PINNED):
            kept[run.name] = "pinned"
        elif not run.created:
            kept[run.name] = "not finished"
        elif newest <= keep:
            kept[run.name] = f"one of the newest {keep}"
        elif older_than and run.created > oldest:
            kept[run.name] = "young"
        elif chained and _content(storage, "export") in chained:
            kept[run.name] = "the base of deltas"
    needed = {
        name: run.name
        for run in found
        if run.name in kept
        for name in (run.base.rstrip("/").rpartition("/")[2], *_named(run))
    }
    for run in found:
        if run.name not in kept and run.name in needed:
            kept[run.name] = f"continued by {needed[run.name]}"
    return [_with_reason(run, kept.get(run.name, "")) for run in found]


def remove(runs: Sequence[StoredRun]) -> int:
    """Remove the runs that are not kept, and checkpoints of finished trainings of the others.

    Returns:
        bytes removed.

    Raises:
        InUseError: a job works on one of the runs; those before it are removed.
    """
    removed = 0
    for run in runs:
        storage = Storage(run.folder)
        if run.kept:
            if run.created and storage.exists(f"train/{MANIFEST}"):
                removed += _clear(storage.at(f"train/{CHECKPOINTS}"))
            continue
        # A job that works on the run has its lease: InUseError, and nothing of it is removed.
        with drive(storage):
            storage.write(REMOVED, b"")
            # The config first: without it the folder is no run to any reader.
            storage.remove(CONFIG)
            storage.sync_folders([CONFIG])  # nor after a power cut that keeps its name
        removed += _clear(storage)
    return removed


def _runs(root: str) -> list[StoredRun]:
    """The runs below a root; a folder whose removal was interrupted is one of them."""
    files, path = file_system(root)
    found = []
    for folder in files.ls(path, detail=False) if files.exists(path) else ():
        name = folder.rstrip("/").rpartition("/")[2]
        own = Storage(f"{root.rstrip('/')}/{name}")
        if not (own.exists(CONFIG) or own.exists(REMOVED)):
            continue
        found.append(StoredRun(own.root, name, _finished(own), _base(own)))
    return found


def _rollback_targets(root: str, most: int) -> list[str]:
    """Names of the runs that were published before the published one, the last one first."""
    names = list(dict.fromkeys(entry.run for entry in publications(root)))
    return names[1 : most + 1]


def _delta_bases(root: str) -> set[str]:
    """Content hashes of the exports that deltas below the root begin with."""
    storage, found = Storage(root), set()
    for path in storage.files():
        parts = path.split("/")
        if parts[-1] != MANIFEST or (len(parts) > 1 and parts[-2] in STAGES):
            continue
        try:
            tree = json.loads(storage.read(path))
            if {"base", "number", "previous", "hash"} <= tree.keys():
                found.add(str(tree["base"]))
        except (FileNotFoundError, *UNREADABLE):
            continue
    return found


def _content(storage: Storage, stage: str) -> str:
    try:
        manifest = read_manifest(storage.at(stage))
    except ArtifactError:
        return ""
    return "" if manifest is None else manifest.content


def _named(run: StoredRun) -> list[str]:
    """Names of the runs that an unfinished run's config says to go on from."""
    if run.created:
        return []
    try:
        config = open_run(run.folder).config
    except EmbedmillError:
        return []
    keys = (config.vocab.previous, config.train.start, config.export.align or "")
    return [key.rstrip("/").rpartition("/")[2] for key in keys if key]


def _finished(storage: Storage) -> str:
    try:
        manifest = read_manifest(storage.at("report"))
    except ArtifactError:
        return ""  # damaged, or of a newer version: not ours to judge
    return "" if manifest is None else manifest.created


def _base(storage: Storage) -> str:
    try:
        return BASE.decode(storage.read(f"vocab/{BASE.path}")).continues
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return ""


def _with_reason(run: StoredRun, kept: str) -> StoredRun:
    return StoredRun(run.folder, run.name, run.created, run.base, kept, _bytes(run.folder))


def _bytes(folder: str) -> int:
    files, path = file_system(folder)
    return int(files.du(path)) if files.exists(path) else 0


def _clear(storage: Storage) -> int:
    """Remove a folder with all that is in it; returns its bytes."""
    files, path = file_system(storage.root)
    if not files.exists(path):
        return 0
    size = int(files.du(path))
    files.rm(path, recursive=True)
    return size
