"""Delta and Iceberg tables for tests, each written by its own library."""

from __future__ import annotations

import json
import struct
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import DeltaTable
from pyiceberg.catalog.memory import InMemoryCatalog
from pyiceberg.io import FileIO
from pyiceberg.manifest import (
    DataFile,
    DataFileContent,
    FileFormat,
    ManifestContent,
    ManifestEntry,
    ManifestEntryStatus,
    ManifestWriterV2,
    write_manifest_list,
)
from pyiceberg.table import Table
from pyiceberg.table.metadata import TableMetadataUtil
from pyiceberg.table.snapshots import Operation, Snapshot, Summary
from pyiceberg.typedef import Record
from pyroaring import BitMap

__all__ = ["add_deletion_vector", "add_iceberg_deletes", "commit_delta", "iceberg_table"]

_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#"
_ROARING_MAGIC = 1681511377


def commit_delta(folder: Path, actions: Sequence[dict[str, Any]]) -> int:
    """Add a version with these actions, as a writer other than delta-rs would; its number."""
    version = DeltaTable(str(folder)).version() + 1
    lines = "".join(json.dumps(action) + "\n" for action in actions)
    (folder / "_delta_log" / f"{version:020}.json").write_text(lines)
    return version


def add_deletion_vector(folder: Path, rows: Sequence[int], file: int = 0) -> int:
    """Delete rows of one of a Delta table's files by a deletion vector; returns the version.

    Source: Delta Transaction Log Protocol, "Deletion Vector Format", "Inline Deletion Vectors".
    """
    log = sorted((folder / "_delta_log").glob("*.json"))
    actions = [json.loads(line) for path in log for line in path.read_text().splitlines()]
    add = [action["add"] for action in actions if "add" in action][file]
    vector = struct.pack("<IQI", _ROARING_MAGIC, 1, 0) + BitMap(rows).serialize()
    descriptor = {
        "storageType": "i",
        "pathOrInlineDv": _z85(vector),
        "sizeInBytes": len(vector),
        "cardinality": len(rows),
    }
    features = {"readerFeatures": ["deletionVectors"], "writerFeatures": ["deletionVectors"]}
    removed = {"path": add["path"], "deletionTimestamp": add["modificationTime"]}
    return commit_delta(
        folder,
        [
            {"protocol": {"minReaderVersion": 3, "minWriterVersion": 7, **features}},
            {"remove": {**removed, "dataChange": True}},
            {"add": {**add, "deletionVector": descriptor}},
        ],
    )


def _z85(data: bytes) -> str:
    text = []
    for start in range(0, len(data) + -len(data) % 4, 4):
        value, digits = int.from_bytes(data[start : start + 4].ljust(4, b"\0"), "big"), ""
        for _ in range(5):
            value, digit = divmod(value, 85)
            digits = _DIGITS[digit] + digits
        text.append(digits)
    return "".join(text)


def iceberg_table(folder: Path, schema: pa.Schema, **properties: str) -> Table:
    """A new Iceberg table in a folder, in a catalog of its own."""
    catalog = InMemoryCatalog(f"test-{uuid.uuid4()}", warehouse=f"file://{folder.parent}")
    catalog.create_namespace("logs")
    return catalog.create_table(
        f"logs.{folder.name}",
        schema,
        location=f"file://{folder}",
        properties={"format-version": "2", **properties},
    )


def add_iceberg_deletes(
    table: Table, folder: Path, deletes: dict[str, Sequence[int]], *, equality: bool = False
) -> Path:
    """Add a snapshot with a file of deletes, as engines that merge on read write it.

    Args:
        table: the table as it stands.
        folder: the table's folder.
        deletes: positions of deleted rows by path of a data file.
        equality: state that the file has equality deletes.

    Returns:
        The table's metadata file.

    Source: Iceberg Table Specification, "Position Delete Files".
    """
    rows = [(path, row) for path, positions in deletes.items() for row in sorted(positions)]
    delete_file = folder / "data" / f"{uuid.uuid4()}-deletes.parquet"
    fields = [("file_path", "2147483546", pa.string()), ("pos", "2147483545", pa.int64())]
    schema = pa.schema(
        [pa.field(n, t, False, {"PARQUET:field_id": number}) for n, number, t in fields]
    )
    columns = [pa.array([r[k] for r in rows], f[2]) for k, f in enumerate(fields)]
    pq.write_table(pa.table(columns, schema=schema), delete_file)
    content = DataFileContent.EQUALITY_DELETES if equality else DataFileContent.POSITION_DELETES
    entry = DataFile.from_args(
        content=content,
        file_path=f"file://{delete_file}",
        file_format=FileFormat.PARQUET,
        partition=Record(),
        record_count=len(rows),
        file_size_in_bytes=delete_file.stat().st_size,
        equality_ids=[1] if equality else None,
    )
    entry.spec_id = table.spec().spec_id
    return _commit_deletes(table, folder, entry, len(rows))


class _DeletesWriter(ManifestWriterV2):
    def content(self) -> ManifestContent:
        return ManifestContent.DELETES

    @property
    def _meta(self) -> dict[str, str]:
        return {**super()._meta, "content": "deletes"}


def _commit_deletes(table: Table, folder: Path, deletes: DataFile, rows: int) -> Path:
    io: FileIO = table.io
    before = table.current_snapshot()
    assert before is not None
    number, sequence = before.snapshot_id + 1, table.metadata.last_sequence_number + 1
    manifest = io.new_output(f"file://{folder}/metadata/{uuid.uuid4()}-deletes.avro")
    with _DeletesWriter(table.spec(), table.schema(), manifest, number, "null") as writer:
        writer.add_entry(
            ManifestEntry.from_args(
                status=ManifestEntryStatus.ADDED, snapshot_id=number, data_file=deletes
            )
        )
    listed = f"file://{folder}/metadata/snap-{number}-1-{uuid.uuid4()}.avro"
    with write_manifest_list(
        2, io.new_output(listed), number, before.snapshot_id, sequence, "null"
    ) as manifests:
        manifests.add_manifests([writer.to_manifest_file(), *before.manifests(io)])
    snapshot = Snapshot(
        snapshot_id=number,
        parent_snapshot_id=before.snapshot_id,
        sequence_number=sequence,
        timestamp_ms=table.metadata.last_updated_ms + 1,
        manifest_list=listed,
        summary=Summary(Operation.DELETE, **{"total-position-deletes": str(rows)}),
        schema_id=table.schema().schema_id,
    )
    tree = json.loads(table.metadata.model_dump_json())
    tree["snapshots"].append(json.loads(snapshot.model_dump_json()))
    tree["current-snapshot-id"] = number
    tree["last-sequence-number"] = sequence
    tree["refs"] = {"main": {"snapshot-id": number, "type": "branch"}}
    tree["last-updated-ms"] = snapshot.timestamp_ms
    tree["snapshot-log"].append({"snapshot-id": number, "timestamp-ms": snapshot.timestamp_ms})
    TableMetadataUtil.parse_obj(tree)
    version = int(table.metadata_location.rpartition("/")[2].partition("-")[0]) + 1
    path = folder / "metadata" / f"{version:05}-{uuid.uuid4()}.metadata.json"
    path.write_text(json.dumps(tree))
    return path
