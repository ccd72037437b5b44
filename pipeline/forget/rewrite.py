"""A finished stage is written anew beside itself, and its manifest is then replaced.

Files that change are written to a new folder in the artifact's, `attempt-N`, and the others are
linked there; N is the number of the lease, which no attempt had before. A reader sees the one or
the other, whenever this ends. Files that no manifest names any more are removed after it, and by
the next command where this one was killed before.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from embedmill.pipeline.errors import MachineError
from embedmill.pipeline.store import contracts
from embedmill.pipeline.store.artifact import Artifact
from embedmill.pipeline.store.cache import cache_folder
from embedmill.pipeline.store.lease import Driver
from embedmill.pipeline.store.run import Run, fingerprint_of
from embedmill.pipeline.store.storage import Storage
from embedmill.schemas.manifest import (
    FORMAT_WITH_FOLDER,
    FileEntry,
    InputEntry,
    Manifest,
)
from embedmill.schemas.run import MANIFEST

__all__ = [
    "Changed",
    "References",
    "commit",
    "new_folder",
    "remove_unnamed",
    "replace_manifest",
    "rewritten",
]

_DELTA_LOG = "_delta_log"


@dataclass(frozen=True)
class Changed:
    """A file of an artifact as it is to be; `data` is None where it is to go."""

    path: str
    data: bytes | None
    rows: int | None = None


class References:
    """New content hashes by the old ones, of all that was written anew below a root."""

    def __init__(self, contents: Mapping[str, str]) -> None:
        self.contents = dict(contents)

    def newest(self, content: str) -> str:
        """The hash that stands for what once had this one."""
        seen = set()
        while content in self.contents and content not in seen:
            seen.add(content)
            content = self.contents[content]
        return content

    def replaced(self, value: Any) -> Any:
        """A JSON value with all strings that are an old hash replaced."""
        if isinstance(value, str):
            return self.newest(value)
        if isinstance(value, list | tuple):
            return [self.replaced(one) for one in value]
        if isinstance(value, dict):
            return {key: self.replaced(one) for key, one in value.items()}
        return value


def new_folder(driver: Driver) -> str:
    """Name of the folder for what this lease writes anew."""
    return f"attempt-{driver.lease.fence}"


def rewritten(
    run: Run,
    artifact: Artifact,
    changed: Iterable[Changed],
    driver: Driver,
) -> tuple[list[FileEntry], str]:
    """Write the files that change; the entries of all files, and the folder that they are in.

    Args:
        run: the run.
        artifact: its stage as it is.
        changed: files that change, one at a time; nothing is written where there are none.
        driver: this process, as the driver of the run.
    """
    home = run.storage.at(artifact.stage)
    own = home.at(new_folder(driver))
    entries = {entry.path: entry for entry in artifact.manifest.files}
    done: set[str] = set()
    for one in changed:
        done.add(one.path)
        if one.data is None:
            del entries[one.path]
            continue
        out = own.write(one.path, one.data)
        rows = entries[one.path].rows if one.rows is None else one.rows
        new = {"bytes": out.bytes, "sha256": out.sha256, "rows": rows}
        entries[one.path] = entries[one.path].model_copy(update=new)
    if not done:
        return list(artifact.manifest.files), artifact.manifest.folder
    for path, entry in entries.items():
        if path not in done:
            own.take(path, artifact.storage, entry.bytes)
    return sorted(entries.values(), key=lambda entry: entry.path), new_folder(driver)


def replace_manifest(
    run: Run,
    artifact: Artifact,
    new: tuple[list[FileEntry], str],
    counters: Mapping[str, int],
    references: References,
) -> Manifest:
    """The manifest as it is to be: files, counters, and references to what was written anew.

    Args:
        run: the run.
        artifact: its stage as it is.
        new: of `rewritten`.
        counters: as they are to be; the laws of the stage must hold.
        references: new content hashes.

    Raises:
        ContractError: a law does not hold.
    """
    old, (files, folder) = artifact.manifest, new
    contracts.check_counters(old.stage, counters, run.storage.root)
    contracts.check_files(old.stage, files, counters, run.storage.root)
    inputs = [
        InputEntry(stage=one.stage, content=references.newest(one.content)) for one in old.inputs
    ]
    sources = references.replaced(old.sources)
    fingerprint = old.fingerprint
    if fingerprint == fingerprint_of(old.stage, old.config, old.inputs, old.sources):
        fingerprint = fingerprint_of(old.stage, old.config, inputs, sources)
    return old.model_copy(
        update={
            "format": FORMAT_WITH_FOLDER if folder else old.format,
            "folder": folder,
            "files": files,
            "counters": dict(sorted(counters.items())),
            "content": Manifest.content_hash(old.contract, old.version, files, dict(counters)),
            "inputs": inputs,
            "sources": sources,
            "fingerprint": fingerprint,
        }
    )


def remove_unnamed(home: Storage, manifest: Manifest | None, *, registered: bool = False) -> bool:
    """Remove all files in a stage's folder that its manifest does not name.

    Args:
        home: the folder.
        manifest: None where the stage has not finished.
        registered: keep the logs of tables that `embedmill register` made of its files.

    Returns:
        whether there were any.
    """
    named = {MANIFEST} if manifest is not None else set()
    if manifest is not None:
        folder = f"{manifest.folder}/" if manifest.folder else ""
        named |= {f"{folder}{entry.path}" for entry in manifest.files}
    stray = [path for path in home.files() if path not in named]
    if registered:
        stray = [path for path in stray if f"/{_DELTA_LOG}/" not in path]
    for path in stray:
        home.remove(path)
    return bool(stray)


def _forget_fetched(entries: Iterable[FileEntry]) -> None:
    """Remove copies of files from this machine's cache."""
    for entry in entries:
        (cache_folder() / "fetched" / entry.sha256).unlink(missing_ok=True)


def commit(run: Run, artifact: Artifact, manifest: Manifest, driver: Driver) -> None:
    """Replace the manifest of a stage, and remove the files that it does not name.

    Raises:
        InUseError: another process has taken the run over.
        MachineError: the store shows another manifest than it was just given; nothing is removed.
    """
    home = run.storage.at(artifact.stage)
    files = home.below(manifest.folder)
    files.sync_folders(entry.path for entry in manifest.files)
    driver.fence.check()
    data = manifest.model_dump_json(indent=1).encode() + b"\n"
    home.write(MANIFEST, data)
    home.sync_folders([MANIFEST])
    run.read_again(artifact.stage)
    if home.read(MANIFEST) != data:
        raise MachineError(
            "the store does not show yet what was written",
            where=home.url(MANIFEST),
            todo="Run the same command again",
        )
    kept = {entry.sha256 for entry in manifest.files}
    _forget_fetched(one for one in artifact.manifest.files if one.sha256 not in kept)
    remove_unnamed(home, manifest)
