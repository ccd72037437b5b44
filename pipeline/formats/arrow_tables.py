"""Formats that are Arrow tables: a Parquet file, and a table of LanceDB."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from embedmill.pipeline.formats.vector_table import DTYPES, IDS, VectorTable

__all__ = ["lance", "parquet"]


def parquet(table: VectorTable, folder: Path) -> None:
    """Write `SIDE.parquet`: row, id, count, payload, vector (a list of fixed size)."""
    path, schema = folder / f"{table.side}.parquet", _schema(table)
    with pq.ParquetWriter(path, schema, compression="zstd", write_page_checksum=True) as out:
        for batch in _batches(table):
            out.write_batch(batch)


def lance(table: VectorTable, folder: Path) -> None:
    """Write `SIDE.lance`, for `lancedb.connect(folder).open_table(SIDE)`; it has no index yet."""
    os.environ.setdefault("LANCEDB_LOG", "error")  # it would warn that the table is new
    import lancedb

    schema = _schema(table)
    reader = pa.RecordBatchReader.from_batches(schema, _batches(table))
    lancedb.connect(str(folder)).create_table(table.side, data=reader, schema=schema)


def _schema(table: VectorTable) -> pa.Schema:
    number = pa.from_numpy_dtype(DTYPES[table.dtype])
    element = pa.field("item", number, nullable=False)
    vector = pa.field("vector", pa.list_(element, table.dim), nullable=False)
    return pa.schema([*IDS, *table.payload.fields, vector])


def _batches(table: VectorTable) -> Iterator[pa.RecordBatch]:
    schema = _schema(table)
    for block in table.blocks():
        flat = pa.array(block.vector_ND.reshape(-1))
        vector = pa.FixedSizeListArray.from_arrays(flat, type=schema.field("vector").type)
        columns = [pa.array(block.row_N), block.ids, pa.array(block.count_N)]
        columns += [*table.payload.columns(block.ids), vector]
        yield pa.RecordBatch.from_arrays(columns, schema=schema)
