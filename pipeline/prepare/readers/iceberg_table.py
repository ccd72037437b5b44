"""Snapshots of Iceberg tables, by pyiceberg, from their metadata files: no catalog is asked.

Source: Iceberg Table Specification, "Column Projection", "Position Delete Files", "Deletion
Vectors".
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from embedmill.pipeline.errors import InputError, MachineError
from embedmill.pipeline.prepare.parse.values import Mask, to_numpy
from embedmill.pipeline.prepare.readers.table_snapshot import (
    TableFile,
    TableSnapshot,
    Wanted,
    absolute_url,
)
from embedmill.pipeline.prepare.readers.table_view import TableView, keyed
from embedmill.pipeline.store.sources import Source, open_source
from embedmill.pipeline.store.table_folders import names_in

__all__ = ["iceberg_snapshot"]

_VERSION = re.compile(r"^v?([0-9]+)(?:-.*)?(?:\.gz)?\.metadata\.json$")
_HINT = "version-hint.text"


def iceberg_snapshot(url: str, wanted: Wanted) -> TableSnapshot:
    """The live data files of an Iceberg table.

    Args:
        url: the table's folder, or a metadata file of it (`*.metadata.json`).
        wanted: id of a snapshot, time at which it was the current one, or a branch or tag.

    Raises:
        InputError: it is no Iceberg table, it has no such snapshot, or it has equality deletes
            or data files that are not Parquet.
        MachineError: pyiceberg is not installed.
    """
    table = _opened(url)
    snapshot = _snapshot(table, wanted, url)
    root, number = absolute_url(table.location()), -1 if snapshot is None else snapshot.snapshot_id
    if snapshot is None:
        return TableSnapshot("iceberg", root, str(table.metadata.table_uuid), -1, "", ())
    current = table.current_snapshot()
    is_current = current is not None and current.snapshot_id == number
    # A change of columns makes no snapshot: the latest one is read with the columns of today.
    schema = table.schema() if is_current else table.schemas()[snapshot.schema_id]
    tasks = sorted(_tasks(table, number, url), key=lambda one: one.file.file_path)
    names, deleted = table.name_mapping(), _deleted_rows(tasks, url)
    view_schema = _keyed_schema(schema, names)
    files = []
    for task in tasks:
        _check_format(task.file, "a data file")
        constants = _constants(table, schema, view_schema, task.file)
        mask = deleted.get(task.file.file_path, np.empty(0, bool))
        source = Source(absolute_url(task.file.file_path), task.file.file_size_in_bytes, "")
        view = TableView(view_schema, constants, mask)
        files.append(TableFile(source, view.encode(), _as_text(constants)))
    identity = str(table.metadata.table_uuid)
    return TableSnapshot("iceberg", root, identity, number, str(schema), tuple(files))


def _opened(url: str) -> Any:
    try:
        from pyiceberg.exceptions import NotInstalledError
        from pyiceberg.table import StaticTable
    except ModuleNotFoundError:
        raise _not_installed(url) from None
    metadata = url if url.endswith(".metadata.json") else _latest_metadata(url)
    try:
        return StaticTable.from_metadata(absolute_url(metadata))
    except (ModuleNotFoundError, NotInstalledError) as error:
        raise MachineError(f"cannot be read: {error}", where=url) from None
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"cannot be read as an Iceberg table: {error}", where=metadata) from None


def _not_installed(url: str) -> MachineError:
    return MachineError(
        "Iceberg tables are read by pyiceberg, which is not installed",
        where=url,
        todo="pip install 'embedmill[iceberg]'",
    )


def _latest_metadata(url: str) -> str:
    """The metadata file of a table's folder: the one that is hinted at, or of highest version.

    Raises:
        InputError: there is none, or several are of the highest version.
    """
    folder = f"{url.rstrip('/')}/metadata"
    names, versions = names_in(folder), defaultdict(list)
    for name in names:
        match = _VERSION.match(name)
        if match:
            versions[int(match[1])].append(name)
    if not versions:
        raise InputError("is no Iceberg table: it has no metadata/*.metadata.json", where=url)
    latest = max(versions)
    if _HINT in names:
        with open_source(f"{folder}/{_HINT}") as raw:
            hint = raw.read().decode(errors="replace").strip()
        latest = int(hint) if hint.isdigit() and int(hint) in versions else latest
    if len(versions[latest]) > 1:
        raise InputError(
            f"has {len(versions[latest])} metadata files of version {latest}, and only its "
            f"catalog knows which is current: {', '.join(sorted(versions[latest]))}",
            where=url,
            todo="Name the current one in paths",
        )
    return f"{folder}/{versions[latest][0]}"


def _snapshot(table: Any, wanted: Wanted, url: str) -> Any:
    """The wanted snapshot; None where the table has none yet."""
    if wanted.number is not None:
        found = table.snapshot_by_id(wanted.number)
    elif wanted.name:
        found = table.snapshot_by_name(wanted.name)
    elif wanted.time is not None:
        found = table.snapshot_as_of_timestamp(int(wanted.time.timestamp() * 1000))
    else:
        return table.current_snapshot()
    if found is None:
        raise InputError(f"has no snapshot '{wanted}'", where=url)
    return found


def _tasks(table: Any, number: int, url: str) -> list[Any]:
    """Data files of a snapshot, each with its delete files."""
    try:
        return list(table.scan(snapshot_id=number).plan_files())
    except (ValueError, NotImplementedError, OSError) as error:
        todo = "Rewrite the table's data files (compaction)" if "equality" in str(error) else ""
        raise InputError(f"cannot be read: {error}", where=url, todo=todo) from None


def _check_format(file: Any, what: str) -> None:
    if file.file_format.name != "PARQUET":
        raise InputError(
            f"is {what} of an Iceberg table in {file.file_format.name}; only Parquet is read",
            where=file.file_path,
        )


def _keyed_schema(schema: Any, mapping: Any) -> pa.Schema:
    """The table's Arrow schema with the id, and the names in files without ids, of each field."""
    from pyiceberg.io.pyarrow import schema_to_pyarrow

    names = _mapped_names(mapping or ())
    return pa.schema([_keyed(field, names) for field in schema_to_pyarrow(schema)])


def _mapped_names(mapping: Iterable[Any]) -> dict[str, list[str]]:
    """Names by field id, of a `schema.name-mapping.default`."""
    found: dict[str, list[str]] = {}
    for field in mapping:
        found[str(field.field_id)] = list(field.names)
        found |= _mapped_names(field.fields)
    return found


def _keyed(field: pa.Field, names: dict[str, list[str]]) -> pa.Field:
    number = (field.metadata or {}).get(b"PARQUET:field_id", b"").decode()
    kind = _keyed_type(field.type, names)
    return keyed(field.with_type(kind), number=number, names=names.get(number, ()))


def _keyed_type(kind: pa.DataType, names: dict[str, list[str]]) -> pa.DataType:
    if pa.types.is_struct(kind):
        return pa.struct([_keyed(inner, names) for inner in kind])
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return pa.list_(kind.value_field.with_type(_keyed_type(kind.value_type, names)))
    return kind


def _constants(table: Any, schema: Any, arrow: pa.Schema, file: Any) -> pa.RecordBatch:
    """Values of columns that a file may lack: of identity partitions, and defaults of columns."""
    from pyiceberg.transforms import IdentityTransform
    from pyiceberg.utils.datetime import days_to_date

    values = {f.name: f.initial_default for f in schema.fields if f.initial_default is not None}
    for position, part in enumerate(table.specs()[file.spec_id].fields):
        column = schema.find_column_name(part.source_id)
        if isinstance(part.transform, IdentityTransform) and column in arrow.names:
            values[column] = file.partition[position]
    for name, value in values.items():
        if isinstance(value, int) and pa.types.is_date(arrow.field(name).type):
            values[name] = days_to_date(value)
    columns = [pa.array([value], arrow.field(name).type) for name, value in values.items()]
    if not columns:
        return pa.RecordBatch.from_pylist([{}])
    return pa.RecordBatch.from_arrays(columns, names=list(values))


def _as_text(row: pa.RecordBatch) -> dict[str, str]:
    values = {name: row.column(name)[0].as_py() for name in row.schema.names}
    return {name: str(value) for name, value in values.items() if value is not None}


def _deleted_rows(tasks: Iterable[Any], url: str) -> dict[str, Mask]:
    """By path of a data file with deletes, whether a row is deleted, [N]."""
    positions: dict[str, list[np.ndarray[Any, Any]]] = defaultdict(list)
    delete_files = {delete.file_path: delete for task in tasks for delete in task.delete_files}
    for _, delete in sorted(delete_files.items()):
        for path, rows in _delete_positions(delete, url):
            positions[path].append(rows)
    deleted = {}
    for path, parts in positions.items():
        rows = np.concatenate(parts)
        deleted[path] = np.zeros(int(rows.max(initial=-1)) + 1, bool)
        deleted[path][rows] = True
    return deleted


def _delete_positions(delete: Any, url: str) -> Iterator[tuple[str, Any]]:
    """Paths of data files and positions of rows in them that a file says are deleted."""
    with open_source(absolute_url(delete.file_path)) as raw:
        if delete.file_format.name == "PUFFIN":
            from pyiceberg.table.deletion_vector import deletion_vectors_from_puffin_file
            from pyiceberg.table.puffin import PuffinFile

            for vector in deletion_vectors_from_puffin_file(PuffinFile(raw.read())):
                yield vector.referenced_data_file, to_numpy(vector.to_vector())
            return
        _check_format(delete, "a file of deletes")
        table = pq.read_table(raw, columns=["file_path", "pos"])
    for path in table["file_path"].unique().to_pylist():
        rows = table.filter(pa.compute.equal(table["file_path"], path))["pos"]
        yield path, to_numpy(rows)
