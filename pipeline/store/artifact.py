"""Artifacts and their manifests.

An artifact is a stage's folder in a run. Its `manifest.json` is written last and only once: without
it the stage has not finished. Readers open only files that the manifest names, and never list a
folder.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, TypeVar, overload

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from embedmill.pipeline.errors import ArtifactError, ContractError, StaleArtifactError
from embedmill.pipeline.store.parquet import (
    check_bytes,
    damaged,
    missing,
    parquet_batches,
    parsing,
)
from embedmill.pipeline.store.storage import Storage
from embedmill.pipeline.store.stored_json import UNREADABLE, first_error
from embedmill.schemas.files import JsonFile, format_of
from embedmill.schemas.manifest import (
    FORMAT,
    FORMAT_WITH_FOLDER,
    FileEntry,
    Manifest,
)
from embedmill.schemas.run import MANIFEST
from embedmill.schemas.stages import STAGES

__all__ = ["MANIFEST", "Artifact", "read_manifest"]

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
            first = (
                first_error(error) if isinstance(error, ValidationError) else type(error).__name__
            )
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
        try:
            ended = Storage(self.folder).read(MANIFEST).endswith(b"}\n")
        except FileNotFoundError:
            yield MANIFEST, _MISSING
        else:
            if not ended:
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
