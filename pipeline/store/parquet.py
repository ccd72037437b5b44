"""Parquet files of artifacts: the same bytes for the same rows, and damage found on reading."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from embedmill.pipeline.errors import CorruptArtifactError
from embedmill.pipeline.store import contracts
from embedmill.pipeline.store.checksums import has_bytes_of
from embedmill.pipeline.store.storage import Storage
from embedmill.schemas.manifest import FileEntry

__all__ = [
    "check_bytes",
    "damaged",
    "missing",
    "parquet_batches",
    "parquet_bytes",
    "parsing",
    "write_parquet",
    "write_table",
]


def parquet_bytes(table: pa.Table) -> bytes:
    """A table as Parquet, the same bytes for the same rows on any engine.

    Key-value metadata is stripped: Spark believes a schema that it finds there. Pages carry
    checksums, so that a flipped byte is noticed by whoever reads, not by `verify` alone.
    """
    sink = io.BytesIO()
    plain = table.replace_schema_metadata(None)
    repeated = [field.name for field in plain.schema if _repeats(field.type)]
    pq.write_table(
        plain, sink, compression="zstd", use_dictionary=repeated, write_page_checksum=True
    )
    return sink.getvalue()


def _repeats(kind: pa.DataType) -> bool:
    """Whether a dictionary is worth its time: ids, names and weights recur, numbers rarely do."""
    return not (pa.types.is_integer(kind) or pa.types.is_nested(kind))


@contextlib.contextmanager
def parsing(where: str) -> Iterator[None]:
    """Around reading Parquet: what cannot be parsed was damaged after it was written.

    Raises:
        CorruptArtifactError: naming the file, `where`.
    """
    try:
        yield
    except pa.ArrowMemoryError:
        raise  # the file is as good as before
    except pa.ArrowException as error:
        raise damaged(where) from error
    except OSError as error:
        if error.errno is not None:
            raise  # the system's; Arrow's have no number
        raise damaged(where) from error


def write_parquet(storage: Storage, stage: str, path: str, table: pa.Table) -> FileEntry:
    """Write one Parquet file of an artifact, from any process; returns its entry."""
    contracts.check_schema(stage, path, table.schema, storage.root)
    return write_table(storage, path, table)


def write_table(storage: Storage, path: str, table: pa.Table) -> FileEntry:
    """Write one Parquet file that no contract names; returns its entry."""
    out = storage.write(path, parquet_bytes(table))
    return FileEntry(path=path, bytes=out.bytes, sha256=out.sha256, rows=table.num_rows)


def parquet_batches(
    storage: Storage,
    path: str,
    *,
    rows: int = 1 << 16,
    columns: Sequence[str] | None = None,
    entry: FileEntry | None = None,
) -> Iterator[pa.RecordBatch]:
    """A Parquet file in pieces of at most `rows`.

    Args:
        storage: the folder that `path` is relative to.
        path: of the file.
        rows: of a piece.
        columns: to read; None for all.
        entry: of the manifest, where known, which saves an object store requests.

    Raises:
        CorruptArtifactError: it is missing or cannot be parsed.
    """
    url = storage.url(path)
    size, sha256 = (entry.bytes, entry.sha256) if entry else (None, "")
    with missing(url), storage.open(path, size, sha256) as raw, parsing(url):
        file = pq.ParquetFile(raw, page_checksum_verification=True)
        wanted = None if columns is None else list(columns)
        yield from file.iter_batches(rows, columns=wanted, use_threads=False)


def check_bytes(storage: Storage, entry: FileEntry) -> None:
    """Compare a file of a local disk with its sha256, once for each change; see `checksums`.

    Raises:
        CorruptArtifactError: it is missing, or its bytes are others.
    """
    if not storage.is_local:
        return
    with missing(storage.url(entry.path)):
        good = has_bytes_of(storage.local_path(entry.path), entry)
    if not good:
        raise damaged(storage.url(entry.path))


@contextlib.contextmanager
def missing(where: str) -> Iterator[None]:
    """Around opening a file that a manifest names: CorruptArtifactError where it is not there."""
    try:
        yield
    except FileNotFoundError:
        raise CorruptArtifactError("is named in the manifest but missing", where=where) from None


def damaged(where: str) -> CorruptArtifactError:
    """The error for a file whose bytes are not those that were written."""
    return CorruptArtifactError(
        "is damaged: its bytes are not those that were written",
        where=where,
        todo="Run again with --rebuild from this stage, or restore the file",
    )
