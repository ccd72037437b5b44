"""Runs, artifacts and manifests.

A run is one folder, `<root>/<name>/`; an artifact is a stage's folder in it. `manifest.json`
is written last, once and exclusively: no manifest, the stage did not happen. Readers open
only files that the manifest names; nobody lists a folder.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import platform
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from pipeline import __version__, contracts
from pipeline.config import Config, parse, stage_fields
from pipeline.errors import (
    ArtifactError,
    CorruptArtifactError,
    MissingArtifactError,
    StaleArtifactError,
)
from pipeline.storage import ExistsError, HashingFile, Storage
from schemas.manifest import FileEntry, InputEntry, Manifest, digest
from schemas.stages import STAGES

__all__ = [
    "Artifact",
    "Run",
    "Writer",
    "is_published",
    "open_run",
    "parquet_bytes",
    "parsing",
    "publish",
    "published",
    "save_config",
    "write_parquet",
]

MANIFEST = "manifest.json"
PUBLISHED = "published.json"
_CHUNK = 4 << 20


@dataclass(frozen=True)
class Artifact:
    """A finished stage, for reading."""

    stage: str
    storage: Storage
    manifest: Manifest

    @property
    def counters(self) -> dict[str, int]:
        """Counts that the stage stated."""
        return self.manifest.counters

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
        if not self.has(path):
            raise ArtifactError(f"has no file '{path}'", where=self.storage.root)
        with self._present(path):
            return self.storage.open(path)

    def read(self, path: str) -> bytes:
        """All bytes of a file, checked against its sha256."""
        entry = next((f for f in self.manifest.files if f.path == path), None)
        if entry is None:
            raise ArtifactError(f"has no file '{path}'", where=self.storage.root)
        with self._present(path):
            data = self.storage.read(path)
        if hashlib.sha256(data).hexdigest() != entry.sha256:
            raise _corrupt(self.storage.url(path))
        return data

    def read_json(self, path: str) -> Any:
        """A JSON file, checked against its sha256."""
        return json.loads(self.read(path))

    def read_table(self, path: str, columns: list[str] | None = None) -> pa.Table:
        """A Parquet file.

        Raises:
            CorruptArtifactError: it is missing or cannot be parsed.
        """
        with self.open(path) as raw, parsing(self.storage.url(path)):
            return pq.read_table(raw, columns=columns, page_checksum_verification=True)

    def batches(
        self, path: str, rows: int = 1 << 16, columns: list[str] | None = None
    ) -> Iterator[pa.RecordBatch]:
        """A Parquet file in pieces of at most `rows`; raises as `read_table`."""
        with self.open(path) as raw, parsing(self.storage.url(path)):
            file = pq.ParquetFile(raw, page_checksum_verification=True)
            yield from file.iter_batches(rows, columns=columns)

    def read_tables(self, folder: str, columns: list[str] | None = None) -> pa.Table:
        """All Parquet files below `folder`, in order of path, as one table."""
        tables = [self.read_table(f.path, columns) for f in self.files(folder)]
        if not tables:
            raise ArtifactError(f"has no files below '{folder}'", where=self.storage.root)
        return pa.concat_tables(tables)

    def verify(self) -> Iterator[tuple[str, str]]:
        """Re-read every file; yields (path, what is wrong) for each that differs."""
        for entry in self.manifest.files:
            wrong = self._wrong(entry)
            if wrong:
                yield entry.path, wrong

    def _wrong(self, entry: FileEntry) -> str:
        sha256, size = hashlib.sha256(), 0
        try:
            with self.storage.open(entry.path) as raw:
                while chunk := raw.read(_CHUNK):
                    sha256.update(chunk)
                    size += len(chunk)
        except FileNotFoundError:
            return "is missing"
        if size != entry.bytes:
            return f"has {size:,} bytes, the manifest says {entry.bytes:,}"
        if sha256.hexdigest() != entry.sha256:
            return "differs from its sha256 in the manifest"
        return ""

    @contextlib.contextmanager
    def _present(self, path: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise CorruptArtifactError(
                "is named in the manifest but missing", where=self.storage.url(path)
            ) from None


@dataclass
class Writer:
    """An artifact in the making; `commit` seals it. Add files from one thread."""

    stage: str
    storage: Storage
    fingerprint: str
    config: dict[str, Any]
    inputs: list[InputEntry]
    sources: dict[str, Any]
    started: float = field(default_factory=time.perf_counter)
    entries: list[FileEntry] = field(default_factory=list)

    def add(self, entries: Iterable[FileEntry]) -> None:
        """Take in files that tasks wrote under `storage`."""
        self.entries.extend(entries)

    def write(self, path: str, data: bytes, *, volatile: bool = False) -> None:
        """Write a whole file."""
        with self.file(path, volatile=volatile) as out:
            out.write(data)

    def write_json(self, path: str, value: Any, *, volatile: bool = False) -> None:
        """Write a JSON file, keys in order, numbers as they are."""
        text = json.dumps(value, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False)
        self.write(path, text.encode() + b"\n", volatile=volatile)

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
        """Check conservation and write the manifest: now the stage has happened.

        Args:
            counters: what the stage counted; the laws of `pipeline.contracts` must hold.
            measured: figures that depend on the machine (latencies); not in the content hash.
            software: versions of what did the work, beside Python's and ours.

        Raises:
            ContractError: a law does not hold, or a path was written twice.
        """
        contracts.check_counters(self.stage, counters, self.storage.root)
        contracts.check_files(self.stage, self.entries, counters, self.storage.root)
        version = STAGES[self.stage].version
        files = sorted(self.entries, key=lambda f: f.path)
        manifest = Manifest(
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
            measured=dict(sorted((measured or {}).items())),
            seconds=round(time.perf_counter() - self.started, 3),
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            software={
                "embedmill": __version__,
                "python": platform.python_version(),
                **(software or {}),
            },
        )
        data = manifest.model_dump_json(indent=1).encode() + b"\n"
        try:
            self.storage.create(MANIFEST, data)
        except ExistsError:
            self._agree(manifest, data)
        return Artifact(self.stage, self.storage, manifest)

    def _agree(self, ours: Manifest, data: bytes) -> None:
        """Another process finished first: fine where its content is ours."""
        theirs = _read_manifest(self.storage)
        if theirs is None or theirs.content != ours.content:
            raise ArtifactError(
                "another process finished this stage first, with other content",
                where=self.storage.root,
                todo="Run `embedmill status` to see it; give each run its own run.name",
            )
        # Times differ from process to process, and ours may lie over theirs by now.
        if next(Artifact(self.stage, self.storage, theirs).verify(), None):
            self.storage.write(MANIFEST, data)


@dataclass(frozen=True)
class Run:
    """A run's folder and its config."""

    config: Config

    @property
    def storage(self) -> Storage:
        """The run's folder."""
        return Storage(f"{self.config.run.root.rstrip('/')}/{self.config.run.name}")

    def manifest(self, stage: str) -> Manifest | None:
        """The stage's manifest, or None where it has not finished."""
        return _read_manifest(self.storage.at(stage))

    def artifact(self, stage: str) -> Artifact:
        """A finished stage.

        Raises:
            MissingArtifactError: it has not finished.
        """
        found = self.find(stage)
        if found is None:
            raise MissingArtifactError(
                f"stage '{stage}' has not finished",
                where=self.storage.root,
                todo=f"Run `embedmill run` on its config first, up to '{stage}'",
            )
        return found

    def find(self, stage: str) -> Artifact | None:
        """The stage's artifact, or None where it has not finished."""
        manifest = self.manifest(stage)
        return None if manifest is None else Artifact(stage, self.storage.at(stage), manifest)

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
            InputEntry(stage=name, content=self.artifact(name).manifest.content)
            for name in STAGES[stage].inputs
        ]
        config, stamps = self.fields(stage), dict(sources or {})
        return Writer(
            stage=stage,
            storage=self.storage.at(stage),
            fingerprint=_fingerprint(stage, config, inputs, stamps),
            config=config,
            inputs=inputs,
            sources=stamps,
        )

    def up_to_date(self, stage: str, sources: Mapping[str, Any] | None = None) -> bool:
        """Whether the stage has finished with this very config and these inputs.

        Raises:
            StaleArtifactError: it has finished with others; names what changed.
        """
        manifest = self.manifest(stage)
        if manifest is None:
            return False
        writer = self.writer(stage, sources)
        if manifest.fingerprint == writer.fingerprint:
            return True
        raise StaleArtifactError(
            f"stage '{stage}' is stale: {_changed(manifest, writer)}",
            where=self.storage.root,
            todo=f"Run again with --rebuild to build '{stage}' and what follows anew, "
            "or give the run another run.name",
        )

    def discard(self, stage: str) -> None:
        """Undo a stage: its manifest first, then the files it named."""
        storage = self.storage.at(stage)
        try:
            manifest = self.manifest(stage)
        except CorruptArtifactError:
            manifest = None  # a damaged manifest names no files that can be trusted
        storage.remove(MANIFEST)
        if manifest is None:
            return
        for entry in manifest.files:
            storage.remove(entry.path)


def publish(run: Run) -> None:
    """Point `<root>/published.json` at the run. Its gates must have been checked."""
    contents = {stage: run.artifact(stage).manifest.content for stage in STAGES}
    value = {
        "format": 1,
        "run": run.config.run.name,
        "content": digest(contents),
        "stages": contents,
        "published": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    Storage(run.config.run.root).write(PUBLISHED, json.dumps(value, indent=1).encode() + b"\n")


def is_published(run: Run) -> bool:
    """Whether the pointer names this very run, or one that was published after it was built."""
    pointer = published(run.config.run.root)
    built = run.artifact("report").manifest.created
    return pointer is not None and str(pointer.get("published", "")) >= built


def published(root: str) -> dict[str, Any] | None:
    """What `<root>/published.json` says, or None where nothing was published."""
    try:
        value = json.loads(Storage(root).read(PUBLISHED))
    except FileNotFoundError:
        return None
    return value if isinstance(value, dict) else None


def open_run(folder: str) -> Run:
    """The run at `folder`, with the config that its driver stored there.

    Raises:
        MissingArtifactError: there is no run.
    """
    folder = folder.rstrip("/")
    try:
        tree = json.loads(Storage(folder).read("config.json"))
    except (FileNotFoundError, NotADirectoryError):
        raise MissingArtifactError(
            "no run here", where=folder, todo="Give the folder that `embedmill run` wrote"
        ) from None
    root, _, name = folder.rpartition("/")
    tree["run"] |= {"root": root or ".", "name": name}
    return Run(parse(tree, where=f"{folder}/config.json"))


def save_config(run: Run) -> None:
    """Store the run's resolved config beside its artifacts, for readers."""
    text = run.config.model_dump_json(indent=1)
    run.storage.write("config.json", text.encode() + b"\n")


def parquet_bytes(table: pa.Table) -> bytes:
    """A table as Parquet, the same bytes for the same rows on any engine.

    Key-value metadata is stripped: Spark believes a schema that it finds there. Pages carry
    checksums, so that a flipped byte is noticed by whoever reads, not by `verify` alone.
    """
    sink = io.BytesIO()
    plain = table.replace_schema_metadata(None)
    pq.write_table(plain, sink, compression="zstd", write_page_checksum=True)
    return sink.getvalue()


@contextlib.contextmanager
def parsing(where: str) -> Iterator[None]:
    """Around reading Parquet: what cannot be parsed was damaged after it was written.

    Raises:
        CorruptArtifactError: naming the file, `where`.
    """
    try:
        yield
    except pa.ArrowException as error:
        raise _corrupt(where) from error
    except OSError as error:
        if error.errno is not None:
            raise  # the system's; Arrow's have no number
        raise _corrupt(where) from error


def write_parquet(storage: Storage, stage: str, path: str, table: pa.Table) -> FileEntry:
    """Write one Parquet file of an artifact, from any process; returns its entry."""
    contracts.check_schema(stage, path, table.schema, storage.root)
    out = storage.write(path, parquet_bytes(table))
    return entry_of(path, out, table.num_rows)


def entry_of(
    path: str, out: HashingFile, rows: int | None = None, volatile: bool = False
) -> FileEntry:
    """The manifest's entry for a file that was just written."""
    return FileEntry(path=path, bytes=out.bytes, sha256=out.sha256, rows=rows, volatile=volatile)


def _read_manifest(storage: Storage) -> Manifest | None:
    try:
        data = storage.read(MANIFEST)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        manifest = Manifest.model_validate_json(data)
    except ValidationError:
        raise _corrupt(storage.url(MANIFEST)) from None
    expected = Manifest.content_hash(
        manifest.contract, manifest.version, manifest.files, manifest.counters
    )
    if manifest.content != expected:
        raise _corrupt(storage.url(MANIFEST))
    return manifest


def _corrupt(where: str) -> CorruptArtifactError:
    return CorruptArtifactError(
        "is damaged: its bytes are not those that were written",
        where=where,
        todo="Run again with --rebuild from this stage, or restore the file",
    )


def _fingerprint(
    stage: str, config: dict[str, Any], inputs: list[InputEntry], sources: dict[str, Any]
) -> str:
    return digest([stage, STAGES[stage].version, config, [i.model_dump() for i in inputs], sources])


def _changed(manifest: Manifest, writer: Writer) -> str:
    """The first difference between what a stage was built from and what is asked now."""
    then, now = manifest.config, writer.config
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
