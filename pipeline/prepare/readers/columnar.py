"""Parquet files, a batch of rows at a time. A record's line number is its row number, from 1."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from embedmill.pipeline.errors import InputError
from embedmill.pipeline.prepare.parse.columns import (
    check_column_names,
    columns_to_read,
    resolve_columns,
)
from embedmill.pipeline.prepare.parse.records import explode_records, has_field
from embedmill.pipeline.prepare.parse.rejects import Rejects, truncated
from embedmill.pipeline.prepare.parse.values import Ints
from embedmill.pipeline.prepare.readers.file_slice import FileSlice
from embedmill.pipeline.prepare.readers.layout import Layout
from embedmill.pipeline.prepare.readers.parsed_batch import ParsedBatch
from embedmill.pipeline.store.sources import Source, open_source

__all__ = ["BATCH_ROWS", "SLICE_BYTES", "BatchParser", "check_columns", "read_slice", "slice_file"]

BATCH_ROWS = 1 << 18  # of a batch at most
SLICE_BYTES = 32 << 20  # smaller files are one slice, and are not opened when reads are planned


def slice_file(source: Source, layout: Layout) -> list[tuple[int, int]]:
    """Slices of whole row groups, about SLICE_BYTES each.

    Raises:
        InputError: the file is no Parquet.
    """
    if source.bytes < SLICE_BYTES:
        return [(0, -1)] if source.bytes else []
    with open_source(source.url) as raw:
        metadata = _opened(raw, source.url).metadata
    slices, start, size = [], 0, 0
    for group in range(metadata.num_row_groups):
        size += metadata.row_group(group).total_byte_size
        if size >= SLICE_BYTES or group + 1 == metadata.num_row_groups:
            slices.append((start, group + 1))
            start, size = group + 1, 0
    return slices


def check_columns(part: FileSlice, layout: Layout) -> tuple[str, ...]:
    """The columns to read of a file.

    Raises:
        InputError: the file is no Parquet or lacks a column.
    """
    with open_source(part.url) as raw:
        schema = _opened(raw, part.url).schema_arrow
    return tuple(BatchParser(schema, layout, json.loads(part.folders), part.url).columns)


def read_slice(part: FileSlice, layout: Layout) -> Iterator[ParsedBatch]:
    """The records of a slice; columns keep their Parquet type.

    Raises:
        InputError: the file is no Parquet, is damaged or lacks a column.
    """
    with open_source(part.url) as raw:
        file = _opened(raw, part.url)
        parser = BatchParser(file.schema_arrow, layout, json.loads(part.folders), part.url)
        end = file.num_row_groups if part.end < 0 else part.end
        groups = list(range(part.start, end))
        row = 1 + sum(file.metadata.row_group(g).num_rows for g in range(part.start))
        try:
            for batch in file.iter_batches(BATCH_ROWS, groups, parser.columns, use_threads=False):
                yield parser.parse(batch, np.arange(row, row + batch.num_rows))
                row += batch.num_rows
        except (OSError, pa.ArrowException) as error:
            raise InputError(f"cannot be read: {error}", where=part.url) from None


class BatchParser:
    """Turns record batches of one file into parsed batches.

    Args:
        schema: of the file.
        layout: has the wanted columns.
        folders: values of the file's Hive folders.
        url: the file, for errors.

    Attributes:
        columns: columns of the file, or paths into them, that the batches must have.

    Raises:
        InputError: the file lacks a column.
    """

    def __init__(
        self, schema: pa.Schema, layout: Layout, folders: dict[str, str], url: str
    ) -> None:
        self._layout = layout
        self._folders = folders
        wanted = [name for column in layout.wanted for name in layout.names_of(column)]
        record = pa.struct(list(schema))
        nested = [
            name
            for name in wanted
            if name not in schema.names and has_field(record, name, layout.explode)
        ]
        check_column_names([*schema.names, *dict.fromkeys(nested)], layout, folders, url)
        self._paths = columns_to_read([*schema.names, *nested], layout)
        self._nested = bool(nested or layout.explode)
        self.columns = self._file_columns(schema.names)

    def _file_columns(self, names: list[str]) -> list[str]:
        """Columns or paths to read from the file; one is read where none is wanted."""
        explode = self._layout.explode
        paths = [p for p in self._paths if not (explode and p.startswith(f"{explode}."))]
        paths += [explode] if explode else []
        return list(dict.fromkeys(paths)) or names[:1]

    def parse(self, batch: pa.RecordBatch, numbers: Ints) -> ParsedBatch:
        """The events of a batch whose rows have these numbers in the file, from 1, [N]."""
        batch = _without_views(batch)
        rows = np.arange(batch.num_rows, dtype=np.int64)
        rejects, empty_lists = Rejects.empty(), 0
        if self._nested:
            events = explode_records(batch.to_struct_array(), self._paths, self._layout.explode)
            fields, rows = events.fields, events.records
            no_list = np.flatnonzero(events.lacking)
            rejects = Rejects.for_reason("explode", numbers[no_list], _as_json(batch, no_list))
            empty_lists = batch.num_rows - len(no_list) - len(np.unique(rows))
        else:
            fields = {name: batch.column(name) for name in self._paths}
        columns = resolve_columns(fields, len(rows), self._layout, self._folders)
        return ParsedBatch(
            columns,
            numbers[rows],
            lambda positions: _as_json(batch, rows[positions]),
            rejects,
            empty_lists,
        )


def _without_views(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The batch with views of text and bytes, which few functions of Arrow take, as plain ones."""
    kinds = [_plain_type(field.type) for field in batch.schema]
    fields = [field.with_type(kind) for field, kind in zip(batch.schema, kinds, strict=True)]
    return batch if kinds == batch.schema.types else batch.cast(pa.schema(fields))


def _plain_type(kind: pa.DataType) -> pa.DataType:
    """The type without views, inside structs and lists too."""
    if pa.types.is_string_view(kind):
        return pa.string()
    if pa.types.is_binary_view(kind):
        return pa.binary()
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(_plain_type(field.type)) for field in kind])
    if pa.types.is_list(kind):
        return pa.list_(kind.value_field.with_type(_plain_type(kind.value_type)))
    return kind


def _as_json(batch: pa.RecordBatch, rows: Ints) -> pa.Array:
    """Records as JSON: what is kept of a reject, since Parquet has no lines."""
    taken = batch.take(pa.array(rows))
    values = {name: _as_python(taken.column(n)) for n, name in enumerate(batch.schema.names)}
    records = (dict(zip(values, row, strict=True)) for row in zip(*values.values(), strict=True))
    texts = [json.dumps(r, default=str, ensure_ascii=False).encode() for r in records]
    return truncated(pa.array(texts, pa.binary()))


def _as_python(column: pa.Array) -> list[Any]:
    """Values of a column; those of a type whose values Python cannot hold, as text or numbers."""
    for convert in (pa.Array.to_pylist, _as_text, _as_integers):
        try:
            return list(convert(column))
        except (ArithmeticError, ValueError, LookupError, pa.ArrowException):
            continue  # a time after the year 9999, a zone that is not known here
    return [str(column.type)] * len(column)


def _as_text(column: pa.Array) -> list[Any]:
    return column.cast(pa.string()).to_pylist()  # type: ignore[no-any-return]


def _as_integers(column: pa.Array) -> list[Any]:
    return column.cast(pa.int64()).to_pylist()  # type: ignore[no-any-return]


def _opened(raw: object, url: str) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(raw)
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"is no Parquet file: {error}", where=url) from None
