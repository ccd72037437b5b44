"""Data files of Delta and Iceberg tables, read as the table means them.

They are Parquet, each read by one or more tasks; see `table_view`. A record's line number is its
row number in the file, from 1, deleted rows included.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from embedmill.pipeline.errors import InputError
from embedmill.pipeline.prepare.readers.columnar import BATCH_ROWS, BatchParser, slice_file
from embedmill.pipeline.prepare.readers.file_slice import FileSlice
from embedmill.pipeline.prepare.readers.layout import Layout
from embedmill.pipeline.prepare.readers.parsed_batch import ParsedBatch
from embedmill.pipeline.prepare.readers.table_view import TableView
from embedmill.pipeline.store.sources import open_source

__all__ = ["check_columns", "read_slice", "slice_file"]


def check_columns(part: FileSlice, layout: Layout) -> tuple[str, ...]:
    """The columns to read of a table.

    Raises:
        InputError: the table lacks a column.
    """
    return tuple(_parser(part, layout, TableView.decode(part.table)).columns)


def read_slice(part: FileSlice, layout: Layout) -> Iterator[ParsedBatch]:
    """The live records of a slice; columns keep their Parquet type.

    Raises:
        InputError: the file is gone, is damaged, or the table lacks a column.
    """
    view = TableView.decode(part.table)
    parser = _parser(part, layout, view)
    columns = _top_columns(parser.columns, view.schema)
    with _opened(part.url) as file:
        names = view.file_columns(file.schema_arrow, part.url)
        to_read = [names[column] for column in columns if column in names]
        to_read = to_read or file.schema_arrow.names[:1]  # rows are counted by a column
        end = file.num_row_groups if part.end < 0 else part.end
        groups = list(range(part.start, end))
        row = sum(file.metadata.row_group(g).num_rows for g in range(part.start))
        for batch in file.iter_batches(BATCH_ROWS, groups, to_read, use_threads=False):
            rows = np.arange(row, row + batch.num_rows)
            row += batch.num_rows
            records, live = view.batch(batch, columns, names), view.live(rows)
            if not live.all():
                records, rows = records.filter(pa.array(live)), rows[live]
            yield parser.parse(records, rows + 1)


def _parser(part: FileSlice, layout: Layout, view: TableView) -> BatchParser:
    return BatchParser(view.schema, layout, json.loads(part.folders), part.url)


def _top_columns(paths: list[str], schema: pa.Schema) -> list[str]:
    """The columns of a table that hold these columns and paths."""
    return [
        name
        for name in schema.names
        if any(path == name or path.startswith(f"{name}.") for path in paths)
    ]


@contextmanager
def _opened(url: str) -> Iterator[pq.ParquetFile]:
    """An open file; Arrow's errors inside the block become an InputError."""
    try:
        raw = open_source(url)
    except FileNotFoundError:
        raise InputError(
            "is named by the table's snapshot and is not there",
            where=url,
            todo="The snapshot may have been vacuumed or expired, or the table moved",
        ) from None
    with raw:
        try:
            yield pq.ParquetFile(raw)
        except (OSError, pa.ArrowException) as error:
            raise InputError(f"cannot be read: {error}", where=url) from None
