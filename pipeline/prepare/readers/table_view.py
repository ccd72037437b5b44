"""What a task needs to know to read a data file of a table: columns, constants, deleted rows.

The driver knows the table's log, and sends each task its file's part of it as text. Tasks need
neither the log nor the table's library.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from embedmill.pipeline.errors import InputError
from embedmill.pipeline.prepare.parse.values import Ints, Mask

__all__ = ["TableView", "keyed"]

_ID, _NAMES = b"id", b"names"
_FILE_ID = b"PARQUET:field_id"


def keyed(field: pa.Field, *, number: str = "", names: Sequence[str] = ()) -> pa.Field:
    """A field of a table's schema with the keys by which a file's column is found.

    Args:
        field: of the table.
        number: the field's id, where the table has ids.
        names: names that the column has in files without ids.
    """
    return field.with_metadata({_ID: number.encode(), _NAMES: json.dumps(list(names)).encode()})


@dataclass(frozen=True)
class TableView:
    """How a data file's rows become rows of the table.

    Attributes:
        schema: of the table; each field has its keys, see `keyed`.
        constants: a row with values of columns that the file may lack: of its partition, or
            defaults.
        deleted: whether a row of the file is deleted, [N]; rows after these are not.
    """

    schema: pa.Schema
    constants: pa.RecordBatch
    deleted: Mask

    def encode(self) -> str:
        """As text, for `decode`."""
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, self.constants.schema) as stream:
            stream.write_batch(self.constants)
        parts = {
            "schema": self.schema.serialize().to_pybytes(),
            "constants": sink.getvalue().to_pybytes(),
            "deleted": np.packbits(self.deleted).tobytes(),
        }
        return json.dumps(
            {n: base64.b64encode(zlib.compress(d)).decode() for n, d in parts.items()}
        )

    @classmethod
    def decode(cls, text: str) -> TableView:
        """The view that `encode` wrote."""
        parts = {n: zlib.decompress(base64.b64decode(d)) for n, d in json.loads(text).items()}
        return cls(
            pa.ipc.read_schema(pa.py_buffer(parts["schema"])),
            pa.ipc.open_stream(parts["constants"]).read_next_batch(),
            np.unpackbits(np.frombuffer(parts["deleted"], np.uint8)).astype(bool),
        )

    def file_columns(self, file_schema: pa.Schema, url: str) -> dict[str, str]:
        """The column of a file by column of the table, where the file has it.

        Raises:
            InputError: nothing says which column of the file is which.
        """
        by_id = {(field.metadata or {}).get(_FILE_ID) for field in file_schema} != {None}
        if not by_id and not any(json.loads(f.metadata[_NAMES]) for f in self.schema):
            raise InputError(
                "its columns have no field ids, and the table no mapping of names",
                where=url,
                todo="Set schema.name-mapping.default of the Iceberg table",
            )
        found = {}
        for field in self.schema:
            index = _index_of(field, file_schema, by_id)
            if index >= 0:
                found[field.name] = file_schema.field(index).name
        return found

    def batch(
        self, file_batch: pa.RecordBatch, columns: Sequence[str], names: Mapping[str, str]
    ) -> pa.RecordBatch:
        """Columns of the table, of a batch of a file.

        Args:
            file_batch: [N] rows.
            columns: of the table.
            names: the file's column by column of the table.
        """
        arrays = []
        for column in columns:
            if column in names:
                field, index = self.schema.field(column), _position(file_batch, names[column])
                array = _converted(file_batch.column(index), field, file_batch.schema.field(index))
            else:
                array = self._constant(column, file_batch.num_rows)
            arrays.append(array)
        return pa.RecordBatch.from_arrays(arrays, names=list(columns))

    def live(self, rows: Ints) -> Mask:
        """Whether rows, by their position in the file from 0, are live, [N]."""
        if not len(self.deleted):
            return np.ones(len(rows), bool)
        within = rows < len(self.deleted)
        return ~(within & self.deleted[np.where(within, rows, 0)])

    def _constant(self, column: str, rows: int) -> pa.Array:
        if column in self.constants.schema.names:
            return self.constants.column(column).take(pa.array(np.zeros(rows, np.int64)))
        return pa.nulls(rows, self.schema.field(column).type)


def _position(batch: pa.RecordBatch, name: str) -> int:
    return int(batch.schema.get_field_index(name))


def _index_of(field: pa.Field, fields: pa.Schema | pa.StructType, by_id: bool) -> int:
    """The position of a table's field among those of a file; -1 where it lacks it."""
    number, names = field.metadata[_ID], json.loads(field.metadata[_NAMES])
    for index, other in enumerate(fields):
        if by_id and number:
            if (other.metadata or {}).get(_FILE_ID) == number:
                return index
        elif other.name in names:
            return index
    return -1


def _converted(array: pa.Array, field: pa.Field, file_field: pa.Field) -> pa.Array:
    """A file's values with the fields inside as the table names them."""
    if pa.types.is_struct(field.type) and pa.types.is_struct(file_field.type):
        by_id = any((f.metadata or {}).get(_FILE_ID) for f in file_field.type)
        arrays = []
        for inner in field.type:
            index = _index_of(inner, file_field.type, by_id)
            if index < 0:
                arrays.append(pa.nulls(len(array), inner.type))
                continue
            values = pc.struct_field(array, [index])
            arrays.append(_converted(values, inner, file_field.type.field(index)))
        names = [inner.name for inner in field.type]
        return pa.StructArray.from_arrays(arrays, names, mask=array.is_null())
    if pa.types.is_list(array.type) and pa.types.is_nested(array.type.value_type):
        inner, file_inner = field.type.value_field, file_field.type.value_field
        values = _converted(array.values, inner, file_inner)
        return pa.ListArray.from_arrays(array.offsets, values, mask=array.is_null())
    return array
