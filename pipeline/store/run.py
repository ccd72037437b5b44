"""Runs and the pointer to the last good one.

A run is one folder, `<root>/<name>/`, with an artifact per stage; `<root>/published.json`
names the last run that passed its gates.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from embedmill.pipeline.config import Config, parse, read_fields, stage_fields
from embedmill.pipeline.errors import (
    ConfigError,
    CorruptArtifactError,
    LateFilesError,
    MissingArtifactError,
    StaleArtifactError,
)
from embedmill.pipeline.store.artifact import Artifact, read_manifest
from embedmill.pipeline.store.artifact_writer import Writer
from embedmill.pipeline.store.lease import current_driver
from embedmill.pipeline.store.parquet import damaged
from embedmill.pipeline.store.storage import Storage
from embedmill.pipeline.store.stored_json import UNREADABLE
from embedmill.schemas.events import REJECTED
from embedmill.schemas.manifest import InputEntry, Manifest, digest
from embedmill.schemas.run import CONFIG, MANIFEST, PUBLISHED, Published
from embedmill.schemas.stages import STAGES

__all__ = [
    "Run",
    "find_run",
    "fingerprint_of",
    "open_run",
    "published",
    "save_config",
    "seen_content",
]


_RESTORE = "Run the run's TOML again, which writes it anew, or restore the file"


@dataclass(frozen=True)
class Run:
    """A run's folder and its config.

    A manifest never changes until its stage is discarded. So those in an object store, where each
    read is a request, are read once.
    """

    config: Config
    _manifests: dict[str, Manifest] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    @property
    def storage(self) -> Storage:
        """The run's folder."""
        return Storage(f"{self.config.run.root.rstrip('/')}/{self.config.run.name}")

    def manifest(self, stage: str) -> Manifest | None:
        """The stage's manifest, or None where it has not finished.

        Raises:
            CorruptArtifactError: it is not what was written, or that of another stage.
        """
        known = self._manifests.get(stage)
        if known is None:
            storage = self.storage.at(stage)
            known = read_manifest(storage)
            if known is not None and known.stage != stage:
                raise damaged(storage.url(MANIFEST))
            if known is not None and storage.is_object_store:
                self._manifests[stage] = known
        return known

    def read_again(self, stage: str) -> None:
        """Read the stage's manifest anew: it was replaced."""
        self._manifests.pop(stage, None)

    def attempt(self, stage: str) -> Storage:
        """The folder that this process writes the stage's files to: its own, or one in it."""
        driver = current_driver(self.storage)
        return self.storage.at(stage).below(driver.folder if driver else "")

    def artifact(self, stage: str) -> Artifact:
        """A finished stage.

        Raises:
            MissingArtifactError: it has not finished.
            StaleArtifactError: it was written to another version of its contract.
        """
        found = self.find(stage)
        if found is None:
            raise MissingArtifactError(
                f"stage '{stage}' has not finished",
                where=self.storage.root,
                todo=f"Run `embedmill run` on its config first, up to '{stage}'",
            )
        if not found.readable:
            raise StaleArtifactError(
                f"stage '{stage}' has version {found.manifest.version} of its contract, this "
                f"program reads {STAGES[stage].version}",
                where=self.storage.root,
                todo="Run its config again with --rebuild, or use the release that wrote it",
            )
        return found

    def find(self, stage: str) -> Artifact | None:
        """The stage's artifact, or None where it has not finished."""
        manifest = self.manifest(stage)
        return None if manifest is None else Artifact.of(stage, self.storage.at(stage), manifest)

    def verify(self, stage: str) -> tuple[Artifact | None, list[tuple[str, str]]]:
        """The stage's artifact, every file read again, and what differs: path, what is wrong.

        Files of a manifest that is gone by then, as in a rebuild, are missing rightly: what there
        is instead is read.
        """
        artifact = self.find(stage)
        while artifact is not None:
            wrong = list(artifact.verify())
            if not wrong:
                return artifact, []
            self.read_again(stage)
            now = self.find(stage)
            if now is not None and now.manifest == artifact.manifest:
                return artifact, wrong
            artifact = now
        return None, []

    def fields(self, stage: str) -> dict[str, Any]:
        """Flat config fields that shape the stage's artifact."""
        return stage_fields(self.config, STAGES[stage].fields)

    def writer(self, stage: str, sources: Mapping[str, Any] | None = None) -> Writer:
        """A writer for the stage; its inputs must have finished.

        Args:
            stage: the stage.
            sources: stamps of raw files, for stages that read them.
        """
        inputs = [
            InputEntry(stage=name, content=seen_content(self.artifact(name).manifest, stage))
            for name in STAGES[stage].inputs
        ]
        config, stamps = self.fields(stage), dict(sources or {})
        driver = current_driver(self.storage)
        folder = driver.folder if driver else ""
        return Writer(
            stage=stage,
            storage=self.storage.at(stage).below(folder),
            fingerprint=fingerprint_of(stage, config, inputs, stamps),
            config=config,
            inputs=inputs,
            sources=stamps,
            folder=folder,
            driver=driver,
        )

    def up_to_date(self, stage: str, sources: Mapping[str, Any] | None = None) -> bool:
        """Whether the stage has finished with this very config and these inputs.

        A value in its manifest that its objective or its kind of index does not read makes no
        difference: older versions took such keys.

        Raises:
            StaleArtifactError: it has finished with others; names what changed.
        """
        manifest = self.manifest(stage)
        if manifest is None:
            return False
        writer = self.writer(stage, sources)
        if manifest.fingerprint == writer.fingerprint or _is_alike(manifest, writer):
            return True
        _refuse_late_files(manifest, writer, self.storage.root)
        raise StaleArtifactError(
            f"stage '{stage}' is stale: {_changed(manifest, writer)}",
            where=self.storage.root,
            todo=f"Run again with --rebuild to build '{stage}' and what follows anew, "
            "or give the run another run.name",
        )

    def discard(self, stage: str) -> None:
        """Undo a stage: its manifest first, then the files it named.

        Raises:
            InUseError: another process has taken the run over.
        """
        storage = self.storage.at(stage)
        driver = current_driver(self.storage)
        if driver is not None:
            driver.fence.check()
        self._manifests.pop(stage, None)
        try:
            manifest = read_manifest(storage)
        except (CorruptArtifactError, StaleArtifactError):
            # A damaged manifest, or one in another format, names no files that can be trusted.
            manifest = None
        storage.remove(MANIFEST)
        if manifest is None:
            return
        storage.sync_folders([MANIFEST])  # no power cut brings it back without the files
        files = storage.below(manifest.folder)
        for entry in manifest.files:
            files.remove(entry.path)


def published(root: str) -> Published | None:
    """What `<root>/published.json` says, or None where nothing was published.

    Raises:
        CorruptArtifactError: it is not what `publish` writes.
    """
    storage = Storage(root)
    try:
        return PUBLISHED.decode(storage.read(PUBLISHED.path))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except UNREADABLE:
        raise CorruptArtifactError(
            "does not say which run is published",
            where=storage.url(PUBLISHED.path),
            todo="Run its config again to publish it anew",
        ) from None


def open_run(folder: str) -> Run:
    """The run at `folder`, with the config that its driver stored there.

    Raises:
        MissingArtifactError: there is no run.
        CorruptArtifactError: what is stored there is no config of a run.
    """
    folder = folder.rstrip("/")
    try:
        data = Storage(folder).read(CONFIG)
    except (FileNotFoundError, NotADirectoryError):
        raise MissingArtifactError(
            "no run here", where=folder, todo="Give the folder that `embedmill run` wrote"
        ) from None
    root, _, name = folder.rpartition("/")
    where = f"{folder}/{CONFIG}"
    try:
        tree = json.loads(data)
        tree["run"] |= {"root": root or ".", "name": name}
        return Run(parse(tree, where=where, stored=True))
    except UNREADABLE as error:
        raise CorruptArtifactError(
            "is not the config of a run", where=where, todo=_RESTORE
        ) from error
    except ConfigError as error:
        what = str(error).removeprefix(f"{where}: ")
        raise CorruptArtifactError(
            f"is not the config of a run: {what}", where=where, todo=_RESTORE
        ) from error


def find_run(url: str) -> Run:
    """The run at `url`, or the one that is published there.

    Raises:
        MissingArtifactError: neither is there.
        CorruptArtifactError: `published.json` is damaged.
        StaleArtifactError: the published run was built anew since, and has not passed its gates.
    """
    storage = Storage(url.rstrip("/") or "/")
    if storage.exists(CONFIG):
        return open_run(url)
    pointer = published(url)
    if pointer is None:
        raise MissingArtifactError(
            "no run here, and nothing published",
            where=url,
            todo="Give the folder that `embedmill run` wrote, or run.root of its config",
        )
    try:
        folder = storage.url(pointer.run)
    except ConfigError:
        raise CorruptArtifactError(
            f"names a run outside of its folder, '{pointer.run}'",
            where=storage.url(PUBLISHED.path),
            todo="Run the config of the run again to publish it anew",
        ) from None
    if not storage.exists(f"{pointer.run}/{CONFIG}"):
        raise MissingArtifactError(
            "the published run was deleted",
            where=storage.url(pointer.run),
            todo=f"`embedmill rollback {url}` publishes the one before it again",
        )
    run = open_run(folder)
    if run.artifact("index").manifest.content != pointer.stages.get("index"):
        raise StaleArtifactError(
            "was built anew after it was published, and has not passed its gates since",
            where=run.storage.root,
            todo="Run its config to the end, or give the run's own folder to read it as it is",
        )
    return run


def save_config(run: Run) -> None:
    """Store the run's resolved config beside its artifacts, for readers."""
    text = run.config.model_dump_json(indent=1)
    run.storage.write(CONFIG, text.encode() + b"\n")


def seen_content(manifest: Manifest, reader: str) -> str:
    """The content hash of what a stage reads of its input.

    Rejected and merged rows do not change the events: only the report, which counts them, becomes
    stale when they change.
    """
    if manifest.stage != "events" or reader == "report":
        return manifest.content
    files = [file for file in manifest.files if not file.path.startswith(f"{REJECTED.folder}/")]
    return Manifest.content_hash(manifest.contract, manifest.version, files, {})


def fingerprint_of(
    stage: str, config: dict[str, Any], inputs: list[InputEntry], sources: dict[str, Any]
) -> str:
    """Hash of what a stage is built from: its contract, config fields, inputs and raw sources."""
    return digest([stage, STAGES[stage].version, config, [i.model_dump() for i in inputs], sources])


def _is_alike(manifest: Manifest, writer: Writer) -> bool:
    """Whether a stage was built from what is asked now, but for values that it does not read."""
    then = manifest.config
    was_made = fingerprint_of(writer.stage, then, manifest.inputs, manifest.sources)
    return (
        was_made == manifest.fingerprint  # by this version of the contract
        and read_fields(then) == read_fields(writer.config)
        and manifest.inputs == writer.inputs
        and manifest.sources == writer.sources
    )


def _refuse_late_files(manifest: Manifest, writer: Writer, where: str) -> None:
    """Raise LateFilesError where nothing but the raw files of a stage have changed."""
    then, now = read_fields(manifest.config), read_fields(writer.config)
    before, after = manifest.sources, writer.sources
    if manifest.stage != "events" or then != now or before == after:
        return
    kinds = {
        "new": [url for url in after if url not in before],
        "changed": [url for url in after if url in before and before[url] != after[url]],
        "gone": [url for url in before if url not in after],
    }
    counts = ", ".join(f"{len(urls):,} {kind}" for kind, urls in kinds.items() if urls)
    first = next(url for urls in kinds.values() for url in urls)
    raise LateFilesError(
        f"stage 'events' is stale: files of the log came or changed after it was built ({counts}): "
        f"{first}",
        where=where,
        todo="The config is the same: run it again with --rebuild to take them in",
    )


def _changed(manifest: Manifest, writer: Writer) -> str:
    """The first difference between what a stage was built from and the run as it is now."""
    then, now = read_fields(manifest.config), read_fields(writer.config)
    for key in sorted(then.keys() | now.keys()):
        if then.get(key) != now.get(key):
            return f"{key} was {json.dumps(then.get(key))}, is now {json.dumps(now.get(key))}"
    before = {i.stage: i.content for i in manifest.inputs}
    for entry in writer.inputs:
        if before.get(entry.stage) != entry.content:
            return f"its input '{entry.stage}' has changed"
    for key in sorted(manifest.sources.keys() | writer.sources.keys()):
        if manifest.sources.get(key) != writer.sources.get(key):
            return f"its source {key} has changed"
    ours = STAGES[writer.stage].version
    return f"its contract is version {manifest.version}, this program writes {ours}"
