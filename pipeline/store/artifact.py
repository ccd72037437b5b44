"""Artifacts and their manifests.

An artifact is a stage's folder in a run. Its `manifest.json` is written last and only once: without
it the stage has not finished. Readers open only files that the manifest names, and never list a
folder.
"""

from __future__ import annotations

import contextlib
import hashlib
import platform
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, BinaryIO, TypeVar, overload

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from embedmill import __version__
from embedmill.pipeline.errors import ArtifactError, ContractError, StaleArtifactError
from embedmill.pipeline.store import contracts
from embedmill.pipeline.store.lease import Driver
from embedmill.pipeline.store.parquet import (
    check_bytes,
    damaged,
    missing,
    parquet_batches,
    parsing,
    write_parquet,
)
from embedmill.pipeline.store.storage import ExistsError, HashingFile, Storage
from embedmill.pipeline.store.stored_json import UNREADABLE
from embedmill.schemas.files import JsonFile, format_of
from embedmill.schemas.manifest import (
    FORMAT,
    FORMAT_WITH_FOLDER,
    FileEntry,
    InputEntry,
    Manifest,
)
from embedmill.schemas.run import MANIFEST
from embedmill.schemas.stages import STAGES

__all__ = ["MANIFEST", "Artifact", "Writer", "entry_of", "read_manifest"]

T = TypeVar("T")

_CHUNK = 4 << 20
_MISSING = "is missing"


@dataclass(frozen=True)
class Artifact:
    """A finished stage, for reading; `storage` is the folder of its files."""

    stage: str
    storage: Storage
    manifest: Manifest

    @classmethod
    def of(cls, stage: str, folder: Storage, manifest: Manifest) -> Artifact:
        """The artifact whose manifest was read from a folder."""
        return cls(stage, folder.below(manifest.folder), manifest)

    @property
    def folder(self) -> str:
        """The folder or URL of its manifest."""
        return self.storage.root.removesuffix(f"/{self.manifest.folder}")

    @property
    def counters(self) -> dict[str, int]:
        """Counts that the stage stated."""
        return self.manifest.counters

    @property
    def readable(self) -> bool:
        """Whether it was written to the version of its contract that this program knows."""
        return self.manifest.version == STAGES[self.stage].version

    def files(self, folder: str = "") -> list[FileEntry]:
        """Entries below `folder` (or the file of that name), sorted by path."""
        return sorted(
            (
                f
                for f in self.manifest.files
                if not folder or f.path == folder or f.path.startswith(f"{folder}/")
            ),
            key=lambda f: f.path,
        )

    def has(self, path: str) -> bool:
        """Whether the manifest names the file."""
        return any(f.path == path for f in self.manifest.files)

    def url(self, path: str) -> str:
        """Full URL of a file."""
        return self.storage.url(path)

    def open(self, path: str) -> BinaryIO:
        """A file of the manifest, for reading.

        Raises:
            CorruptArtifactError: it is named but not there.
        """
        entry = self._entry(path)
        with missing(self.url(path)):
            return self.storage.open(path, entry.bytes, entry.sha256)

    def read(self, path: str) -> bytes:
        """All bytes of a file, checked against its sha256."""
        entry = self._entry(path)
        with missing(self.url(path)):
            data = self.storage.read(path, entry.bytes, entry.sha256)
        if hashlib.sha256(data).hexdigest() != entry.sha256:
            raise damaged(self.storage.url(path))
        return data

    def _entry(self, path: str) -> FileEntry:
        """A file of the manifest."""
        entry = next((f for f in self.manifest.files if f.path == path), None)
        if entry is None:
            raise ArtifactError(f"has no file '{path}'", where=self.storage.root)
        return entry

    def check(self, path: str) -> None:
        """Compare a file with its sha256, a piece at a time.

        Raises:
            CorruptArtifactError: it differs, or is missing.
        """
        wrong = self._wrong(self._entry(path))
        if wrong == _MISSING:
            with missing(self.url(path)):
                raise FileNotFoundError(path)
        if wrong:
            raise damaged(self.storage.url(path))

    @overload
    def read_json(self, file: JsonFile[T]) -> T: ...
    @overload
    def read_json(self, file: str) -> Any: ...

    def read_json(self, file: JsonFile[T] | str) -> T | Any:
        """What a JSON file says, checked against its sha256.

        Raises:
            CorruptArtifactError: its bytes differ from the manifest.
            ContractError: it is not of the file's type.
        """
        named: JsonFile[Any] = JsonFile(file, Any) if isinstance(file, str) else file
        data = self.read(named.path)
        try:
            return named.decode(data)
        except UNREADABLE as error:
            first = _first(error) if isinstance(error, ValidationError) else type(error).__name__
            raise ContractError(
                f"is not what the contract of '{self.stage}' says: {first}",
                where=self.url(named.path),
            ) from error

    def read_table(self, path: str, columns: list[str] | None = None) -> pa.Table:
        """A Parquet file; on a local disk its bytes are compared with their sha256 first.

        Raises:
            CorruptArtifactError: it is missing, differs, or cannot be parsed.
        """
        check_bytes(self.storage, self._entry(path))
        with self.open(path) as raw, parsing(self.storage.url(path)):
            # pq.read_table would import pyarrow.dataset, and with it pandas: .2 seconds.
            file = pq.ParquetFile(raw, page_checksum_verification=True)
            return file.read(columns)

    def batches(
        self, path: str, rows: int = 1 << 16, columns: list[str] | None = None
    ) -> Iterator[pa.RecordBatch]:
        """A Parquet file in pieces of at most `rows`; raises as `read_table`."""
        entry = self._entry(path)
        check_bytes(self.storage, entry)
        return parquet_batches(self.storage, path, rows=rows, columns=columns, entry=entry)

    def read_tables(self, folder: str, columns: list[str] | None = None) -> pa.Table:
        """All Parquet files below `folder`, in order of path, as one table."""
        tables = [self.read_table(f.path, columns) for f in self.files(folder)]
        if not tables:
            raise ArtifactError(f"has no files below '{folder}'", where=self.storage.root)
        return pa.concat_tables(tables)

    def verify(self) -> Iterator[tuple[str, str]]:
        """Re-read every file; yields (path, what is wrong) for each that differs."""
        if not Storage(self.folder).read(MANIFEST).endswith(b"}\n"):
            yield MANIFEST, "is cut short: it does not end as it was written"
        for entry in self.manifest.files:
            wrong = self._wrong(entry)
            if wrong:
                yield entry.path, wrong

    def _wrong(self, entry: FileEntry) -> str:
        sha256, size = hashlib.sha256(), 0
        try:
            with self.storage.open(entry.path, entry.bytes) as raw:
                while chunk := raw.read(_CHUNK):
                    sha256.update(chunk)
                    size += len(chunk)
        except FileNotFoundError:
            return _MISSING
        if size != entry.bytes:
            return f"has {size:,} bytes, the manifest says {entry.bytes:,}"
        if sha256.hexdigest() != entry.sha256:
            return "differs from its sha256 in the manifest"
        return ""


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
            raise ContractError(
                f"'{file.path}' is not what the contract of '{self.stage}' says: {_first(error)}",
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


def _first(error: ValidationError) -> str:
    """The first error of a validation, with the key where it is."""
    first = error.errors(include_url=False, include_context=False)[0]
    key = ".".join(str(part) for part in first["loc"])
    return f"{key}: {first['msg']}" if key else str(first["msg"])


def read_manifest(storage: Storage) -> Manifest | None:
    """The manifest in an artifact's folder, or None where the stage has not finished.

    Raises:
        CorruptArtifactError: it is not what was written.
        StaleArtifactError: it is in another format.
    """
    try:
        data = storage.read(MANIFEST)
    except (FileNotFoundError, NotADirectoryError):
        return None
    stored = format_of(data)
    if stored not in (None, FORMAT, FORMAT_WITH_FOLDER):
        raise StaleArtifactError(
            f"is in format {stored}, this program reads format {FORMAT}",
            where=storage.url(MANIFEST),
            todo="Use the release that wrote it, or run its config again with --rebuild",
        )
    try:
        manifest = Manifest.model_validate_json(data)
        expected = Manifest.content_hash(
            manifest.contract, manifest.version, manifest.files, manifest.counters
        )
    except UNREADABLE:
        raise damaged(storage.url(MANIFEST)) from None
    if manifest.content != expected:
        raise damaged(storage.url(MANIFEST))
    return manifest
