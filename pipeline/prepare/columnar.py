"""Parquet files, a row group at a time. The line of a record is its row, from 1."""

from __future__ import annotations

import json
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import InputError
from pipeline.prepare.block import Block, Layout, Rejects, Split, shortened
from pipeline.prepare.delimited import check_names
from pipeline.storage import Source, open_source

__all__ = ["blocks", "cut"]

_BATCH = 1 << 18


def cut(source: Source, layout: Layout) -> list[tuple[int, int]]:
    """Every row group on its own.

    Raises:
        InputError: the file is no Parquet or lacks a column.
    """
    with open_source(source.url) as raw:
        file = _opened(raw, source.url)
        check_names(tuple(file.schema_arrow.names), layout, source.url)
        return [(group, group + 1) for group in range(file.num_row_groups)]


def blocks(split: Split, layout: Layout) -> Iterator[Block]:
    """The records of row groups [start, end); columns keep their Parquet type."""
    with open_source(split.url) as raw:
        file = _opened(raw, split.url)
        end = file.num_row_groups if split.end < 0 else split.end
        groups = range(split.start, end)
        before = sum(file.metadata.row_group(g).num_rows for g in range(split.start))
        names = list(layout.wanted or file.schema_arrow.names)
        try:
            for batch in file.iter_batches(_BATCH, list(groups), names, use_threads=False):
                yield _block(batch, before + 1)
                before += batch.num_rows
        except (OSError, pa.ArrowException) as error:
            raise InputError(f"cannot be read: {error}", where=split.url) from None


def _block(batch: pa.RecordBatch, first: int) -> Block:
    def raw(rows: npt.NDArray[np.int64]) -> pa.Array:
        records = batch.take(pa.array(rows)).to_pylist()
        texts = [json.dumps(r, default=str, ensure_ascii=False).encode() for r in records]
        return shortened(pa.array(texts, pa.binary()))

    columns = dict(zip(batch.schema.names, batch.columns, strict=True))
    lines = np.arange(first, first + batch.num_rows, dtype=np.int64)
    return Block(columns, lines, raw, Rejects([], [], []))


def _opened(raw: object, url: str) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(raw)
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"is no Parquet file: {error}", where=url) from None
