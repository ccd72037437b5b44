"""Snapshots of Delta tables, by deltalake (delta-rs).

Source: Delta Transaction Log Protocol, "Column Mapping", "Deletion Vectors".
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from embedmill.pipeline.errors import InputError, MachineError
from embedmill.pipeline.prepare.parse.values import Mask, to_numpy
from embedmill.pipeline.prepare.readers.table_snapshot import (
    TableFile,
    TableSnapshot,
    Wanted,
    absolute_url,
)
from embedmill.pipeline.prepare.readers.table_view import TableView, keyed
from embedmill.pipeline.store.sources import Source

__all__ = ["delta_snapshot"]

# What readers of a table must know, and this one does.
_KNOWN_FEATURES = {
    "catalogManaged", "catalogOwned-preview", "columnMapping", "deletionVectors", "timestampNtz",
    "typeWidening", "typeWidening-preview", "v2Checkpoint", "vacuumProtocolCheck",
}  # fmt: skip
_PHYSICAL_NAME = b"delta.columnMapping.physicalName"
_PHYSICAL_ID = b"delta.columnMapping.id"


def delta_snapshot(url: str, wanted: Wanted) -> TableSnapshot:
    """The live data files of a Delta table.

    Args:
        url: the table's folder.
        wanted: version, or time at which the version was the latest.

    Raises:
        InputError: it is no Delta table, it has no such version, or it needs a feature that is
            not supported.
        MachineError: deltalake is not installed.
    """
    table = _opened(url, wanted)
    _check_features(table, url)
    root, actions = absolute_url(url), pa.table(table.get_add_actions())
    mode = table.metadata().configuration.get("delta.columnMapping.mode", "none")
    schema = pa.schema([_keyed(f, mode) for f in pa.schema(table.schema().to_arrow())])
    deleted = _deleted_rows(table, root)
    files: list[TableFile] = []
    for file, values in zip(_file_urls(actions, root), _partitions(actions), strict=True):
        source = Source(file, actions["size_bytes"][len(files)].as_py(), "")
        view = TableView(schema, values, deleted.get(file, np.empty(0, bool)))
        files.append(TableFile(source, view.encode(), _as_text(values)))
    files.sort(key=lambda one: one.source.url)
    identity, columns = table.metadata().id, table.schema().to_json()
    return TableSnapshot("delta", root, identity, table.version(), columns, tuple(files))


def _opened(url: str, wanted: Wanted) -> Any:
    """The table at the wanted version."""
    try:
        from deltalake import DeltaTable
        from deltalake.exceptions import DeltaError, TableNotFoundError
    except ModuleNotFoundError:
        raise MachineError(
            "Delta tables are read by deltalake, which is not installed",
            where=url,
            todo="pip install 'embedmill[delta]'",
        ) from None
    if wanted.name:
        raise InputError(
            f"a snapshot of a Delta table is a version or an ISO time, not '{wanted.name}'",
            where=url,
        )
    try:
        table = DeltaTable(absolute_url(url), version=wanted.number)
        if wanted.time is not None:
            latest = table.version()
            table.load_as_version(wanted.time)
            # Where no version is that old, delta-rs answers with the oldest. It tells the latest
            # versions first, whatever version is loaded.
            since = table.history(latest - table.version() + 1)[-1].get("timestamp", 0)
            if since > wanted.time.timestamp() * 1000:
                raise InputError(f"has no version as old as {wanted.time}", where=url)
    except TableNotFoundError as error:
        raise InputError(f"is no Delta table: {error}", where=url) from None
    except (DeltaError, OSError, ValueError) as error:
        raise InputError(f"cannot be read as a Delta table: {error}", where=url) from None
    return table


def _check_features(table: Any, url: str) -> None:
    protocol = table.protocol()
    unknown = sorted(set(protocol.reader_features or ()) - _KNOWN_FEATURES)
    if protocol.min_reader_version > 3 or unknown:
        what = ", ".join(unknown) or f"reader version {protocol.min_reader_version}"
        raise InputError(f"the Delta table needs what is not supported: {what}", where=url)


def _keyed(field: pa.Field, mode: str) -> pa.Field:
    """The field with its name, and in mode "id" its number, in data files; fields inside too."""
    metadata, kind = field.metadata or {}, field.type
    mapped = mode in ("name", "id")
    name = metadata.get(_PHYSICAL_NAME, b"").decode() if mapped else field.name
    number = metadata.get(_PHYSICAL_ID, b"").decode() if mode == "id" else ""
    return keyed(field.with_type(_keyed_type(kind, mode)), number=number, names=[name])


def _keyed_type(kind: pa.DataType, mode: str) -> pa.DataType:
    if pa.types.is_struct(kind):
        return pa.struct([_keyed(inner, mode) for inner in kind])
    if pa.types.is_list(kind):
        return pa.list_(kind.value_field.with_type(_keyed_type(kind.value_type, mode)))
    return kind


def _file_urls(actions: pa.Table, root: str) -> Iterator[str]:
    for path in actions["path"].to_pylist():
        path = unquote(path)
        yield path if "://" in path or path.startswith("/") else f"{root}/{path}"


def _partitions(actions: pa.Table) -> Iterator[pa.RecordBatch]:
    """The values of each file's partition, as a row."""
    if "partition" not in actions.column_names:
        yield from (pa.RecordBatch.from_pylist([{}]) for _ in range(actions.num_rows))
        return
    values = actions["partition"].combine_chunks()
    rows = pa.RecordBatch.from_struct_array(values)
    for number in range(rows.num_rows):
        yield rows.take(pa.array([number]))


def _as_text(row: pa.RecordBatch) -> dict[str, str]:
    values = {name: row.column(name)[0].as_py() for name in row.schema.names}
    return {name: str(value) for name, value in values.items() if value is not None}


def _deleted_rows(table: Any, root: str) -> dict[str, Mask]:
    """By URL of a file with a deletion vector, whether a row is deleted, [N]."""
    if "deletionVectors" not in (table.protocol().reader_features or ()):
        return {}
    deleted = {}
    for batch in pa.RecordBatchReader.from_stream(table.deletion_vectors()):
        for file, kept in zip(batch.column(0).to_pylist(), batch.column(1), strict=True):
            path = unquote(file.removeprefix(f"{root}/"))
            url = path if "://" in path else f"{root}/{path}"
            deleted[url] = ~to_numpy(pc.fill_null(kept.values, True)).astype(bool)
    return deleted
