"""Parquet files, a row group at a time. The line of a record is its row, from 1."""

from __future__ import annotations

import json
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from embedmill.pipeline.errors import InputError
from embedmill.pipeline.prepare.parse.columns import check_names, chosen, resolved
from embedmill.pipeline.prepare.parse.records import exploded, has_field
from embedmill.pipeline.prepare.readers.parsed_batch import (
    Block,
    Ints,
    Layout,
    Rejects,
    Split,
    shortened,
)
from embedmill.pipeline.store.storage import Source, open_source

__all__ = ["blocks", "check", "cut"]

_BATCH = 1 << 18
_WHOLE = 32 << 20  # smaller files are not cut, and not opened to plan


def cut(source: Source, layout: Layout) -> list[tuple[int, int]]:
    """A large file by its row groups.

    Raises:
        InputError: the file is no Parquet.
    """
    if source.bytes < _WHOLE:
        return [(0, -1)]
    with open_source(source.url) as raw:
        metadata = _opened(raw, source.url).metadata
    cuts, start, size = [], 0, 0
    for group in range(metadata.num_row_groups):
        size += metadata.row_group(group).total_byte_size
        if size >= _WHOLE or group + 1 == metadata.num_row_groups:
            cuts.append((start, group + 1))
            start, size = group + 1, 0
    return cuts


def check(split: Split, layout: Layout) -> tuple[str, ...]:
    """The columns to read of a file.

    Raises:
        InputError: the file is no Parquet or lacks a column.
    """
    with open_source(split.url) as raw:
        schema = _opened(raw, split.url).schema_arrow
    return tuple(_Reader(schema, layout, json.loads(split.folders), split.url).columns)


def blocks(split: Split, layout: Layout) -> Iterator[Block]:
    """The records of row groups [start, end); columns keep their Parquet type.

    Raises:
        InputError: the file is no Parquet, is damaged or lacks a column.
    """
    with open_source(split.url) as raw:
        file = _opened(raw, split.url)
        reader = _Reader(file.schema_arrow, layout, json.loads(split.folders), split.url)
        end = file.num_row_groups if split.end < 0 else split.end
        groups = list(range(split.start, end))
        first = 1 + sum(file.metadata.row_group(g).num_rows for g in range(split.start))
        try:
            for batch in file.iter_batches(_BATCH, groups, reader.columns, use_threads=False):
                yield reader.block(batch, first)
                first += batch.num_rows
        except (OSError, pa.ArrowException) as error:
            raise InputError(f"cannot be read: {error}", where=split.url) from None


class _Reader:
    """Turns batches of a file into blocks."""

    def __init__(
        self, schema: pa.Schema, layout: Layout, folders: dict[str, str], url: str
    ) -> None:
        self._layout = layout
        self._folders = folders
        known = [n for column in layout.wanted for n in layout.known_as(column)]
        kind = pa.struct(list(schema))
        nested = [n for n in known if n not in schema.names and has_field(kind, n, layout.explode)]
        check_names([*schema.names, *dict.fromkeys(nested)], layout, folders, url)
        self._paths = chosen([*schema.names, *nested], layout)
        self._nested = bool(nested or layout.explode)
        self.columns = self._columns(schema.names)

    def _columns(self, names: list[str]) -> list[str]:
        """What to read of the file."""
        explode = self._layout.explode
        paths = [p for p in self._paths if not (explode and p.startswith(f"{explode}."))]
        paths += [explode] if explode else []
        return list(dict.fromkeys(paths)) or names[:1]

    def block(self, batch: pa.RecordBatch, first: int) -> Block:
        """The events of a batch whose first row has number `first`."""
        rows = np.arange(batch.num_rows, dtype=np.int64)
        rejects, empty = Rejects.none(), 0
        if self._nested:
            found = exploded(batch.to_struct_array(), self._paths, self._layout.explode)
            fields, rows, lacking = found.fields, found.records, np.flatnonzero(found.lacking)
            rejects = Rejects.of("explode", first + lacking, _raw(batch, lacking))
            empty = batch.num_rows - len(lacking) - len(np.unique(rows))
        else:
            fields = {name: batch.column(name) for name in self._paths}
        columns = resolved(fields, len(rows), self._layout, self._folders)
        return Block(
            columns, first + rows, lambda chosen: _raw(batch, rows[chosen]), rejects, empty
        )


def _raw(batch: pa.RecordBatch, rows: Ints) -> pa.Array:
    """Records as JSON, as Parquet has no lines."""
    records = batch.take(pa.array(rows)).to_pylist()
    texts = [json.dumps(r, default=str, ensure_ascii=False).encode() for r in records]
    return shortened(pa.array(texts, pa.binary()))


def _opened(raw: object, url: str) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(raw)
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"is no Parquet file: {error}", where=url) from None
