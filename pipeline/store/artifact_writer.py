"""Writing an artifact: its files, then the manifest that seals it."""

from __future__ import annotations

import contextlib
import platform
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, TypeVar, overload

import pyarrow as pa
from pydantic import ValidationError

from embedmill import __version__
from embedmill.pipeline.errors import ArtifactError, ContractError
from embedmill.pipeline.store import contracts
from embedmill.pipeline.store.artifact import Artifact, read_manifest
from embedmill.pipeline.store.lease import Driver
from embedmill.pipeline.store.parquet import write_parquet
from embedmill.pipeline.store.storage import ExistsError, HashingFile, Storage
from embedmill.pipeline.store.stored_json import first_error
from embedmill.schemas.files import JsonFile
from embedmill.schemas.manifest import (
    FORMAT,
    FORMAT_WITH_FOLDER,
    FileEntry,
    InputEntry,
    Manifest,
)
from embedmill.schemas.run import MANIFEST
from embedmill.schemas.stages import STAGES

__all__ = ["Writer", "entry_of"]

T = TypeVar("T")


@dataclass
class Writer:
    """An artifact in the making; `commit` seals it. Add files from one thread.

    Each of `gauges` is called on commit; it returns figures for `measured`, such as peak memory.

    Attributes:
        storage: the folder of its files.
        folder: where this lies below that of the manifest; empty where it is the same.
        driver: this process as the driver of the run, where it is.
        replaces: the manifest that this one takes the place of; its files are elsewhere.
    """

    stage: str
    storage: Storage
    fingerprint: str
    config: dict[str, Any]
    inputs: list[InputEntry]
    sources: dict[str, Any]
    started: float = field(default_factory=time.perf_counter)
    entries: list[FileEntry] = field(default_factory=list)
    gauges: list[Callable[[], Mapping[str, float]]] = field(default_factory=list)
    folder: str = ""
    driver: Driver | None = None
    replaces: Manifest | None = None

    def add(self, entries: Iterable[FileEntry]) -> None:
        """Take in files that tasks wrote under `storage`."""
        self.entries.extend(entries)

    def write(self, path: str, data: bytes, *, volatile: bool = False) -> None:
        """Write a whole file."""
        with self.file(path, volatile=volatile) as out:
            out.write(data)

    @overload
    def write_json(self, file: JsonFile[T], value: T) -> None: ...
    @overload
    def write_json(self, file: str, value: Any, *, volatile: bool = False) -> None: ...

    def write_json(self, file: JsonFile[Any] | str, value: Any, *, volatile: bool = False) -> None:
        """Write a JSON file, keys in order, numbers as they are.

        Raises:
            ContractError: the value is not of the file's type.
        """
        if isinstance(file, str):
            file = JsonFile(file, Any, volatile)
        try:
            data = file.encode(value)
        except ValidationError as error:
            said = first_error(error)
            raise ContractError(
                f"'{file.path}' is not what the contract of '{self.stage}' says: {said}",
                where=self.storage.root,
                todo="This is a bug; nothing was committed",
            ) from error
        self.write(file.path, data, volatile=file.volatile)

    def write_table(self, path: str, table: pa.Table) -> None:
        """Write a Parquet file, after checking its schema where the contract fixes one."""
        self.add([write_parquet(self.storage, self.stage, path, table)])

    @contextlib.contextmanager
    def file(
        self, path: str, *, rows: int | None = None, volatile: bool = False
    ) -> Iterator[HashingFile]:
        """A file for writing in order, taken into the manifest when the block ends."""
        with self.storage.writer(path) as out:
            yield out
        self.add([entry_of(path, out, rows, volatile)])

    def commit(
        self,
        counters: Mapping[str, int],
        measured: Mapping[str, float] | None = None,
        software: Mapping[str, str] | None = None,
    ) -> Artifact:
        """Check the conservation laws and write the manifest, which finishes the stage.

        Args:
            counters: what the stage counted; the laws of the stage's contract must hold.
            measured: figures that depend on the machine (latencies); not in the content hash.
            software: versions of what did the work, beside Python's and ours.

        Raises:
            ContractError: a law does not hold, or a path was written twice.
            InUseError: another process has taken the run over.
        """
        contracts.check_counters(self.stage, counters, self.storage.root)
        contracts.check_files(self.stage, self.entries, counters, self.storage.root)
        version = STAGES[self.stage].version
        files = sorted(self.entries, key=lambda f: f.path)
        seconds = time.perf_counter() - self.started
        manifest = Manifest(
            format=FORMAT_WITH_FOLDER if self.folder else FORMAT,
            folder=self.folder,
            stage=self.stage,
            contract=self.stage,
            version=version,
            fingerprint=self.fingerprint,
            content=Manifest.content_hash(self.stage, version, files, dict(counters)),
            config=self.config,
            inputs=self.inputs,
            sources=self.sources,
            files=files,
            counters=dict(sorted(counters.items())),
            measured=self._measured(counters, seconds, measured or {}),
            seconds=round(seconds, 3),
            created=self.replaces.created
            if self.replaces is not None
            else datetime.now(UTC).isoformat(timespec="seconds"),
            software={
                "embedmill": __version__,
                "python": platform.python_version(),
                **(software or {}),
            },
        )
        data = manifest.model_dump_json(indent=1).encode() + b"\n"
        root = self.storage.root.removesuffix(f"/{self.folder}")
        home = replace(self.storage, root=root)  # which links may not leave either
        self.storage.sync_folders(entry.path for entry in self.entries)
        if self.driver is not None:
            self.driver.fence.check()
        if self.replaces is not None:
            home.write(MANIFEST, data)
            home.sync_folders([MANIFEST])
            return Artifact.of(self.stage, home, manifest)
        try:
            home.create(MANIFEST, data)
            home.sync_folders([MANIFEST])
        except ExistsError:
            manifest = self._agree(home, manifest, data)
        return Artifact.of(self.stage, home, manifest)

    def _measured(
        self, counters: Mapping[str, int], seconds: float, given: Mapping[str, float]
    ) -> dict[str, float]:
        """Bytes written, rows per second, figures of the gauges, and the given ones."""
        found: dict[str, float] = {"written_bytes": sum(f.bytes for f in self.entries)}
        rows = sum(counters.get(name, 0) for name in STAGES[self.stage].rows)
        if rows and seconds > 0:
            found["rows_per_second"] = round(rows / seconds, 1)
        for gauge in self.gauges:
            found |= gauge()
        return dict(sorted({**found, **given}.items()))

    def _agree(self, home: Storage, ours: Manifest, data: bytes) -> Manifest:
        """Accept the manifest of a process that finished first, if its content is the same."""
        theirs = read_manifest(home)
        if theirs is None or theirs.content != ours.content:
            raise ArtifactError(
                "another process finished this stage first, with other content",
                where=home.root,
                todo="Run `embedmill status` to see it; give each run its own run.name",
            )
        # Times differ from process to process, and ours may lie over theirs by now.
        if next(Artifact.of(self.stage, home, theirs).verify(), None):
            home.write(MANIFEST, data)
            return ours
        return theirs


def entry_of(
    path: str, out: HashingFile, rows: int | None = None, volatile: bool = False
) -> FileEntry:
    """The manifest's entry for a file that was just written."""
    return FileEntry(path=path, bytes=out.bytes, sha256=out.sha256, rows=rows, volatile=volatile)
