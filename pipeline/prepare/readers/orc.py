"""ORC files, a stripe at a time. A record's line number is its row number, from 1."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.orc

from embedmill.pipeline.errors import InputError
from embedmill.pipeline.prepare.readers.columnar import BATCH_ROWS, SLICE_BYTES, BatchParser
from embedmill.pipeline.prepare.readers.file_slice import FileSlice
from embedmill.pipeline.prepare.readers.layout import Layout
from embedmill.pipeline.prepare.readers.parsed_batch import ParsedBatch
from embedmill.pipeline.store.sources import Source, open_source

__all__ = ["check_columns", "read_slice", "slice_file"]


def slice_file(source: Source, layout: Layout) -> list[tuple[int, int]]:
    """Slices of whole stripes, about SLICE_BYTES each.

    Raises:
        InputError: the file is no ORC.
    """
    if source.bytes < SLICE_BYTES:
        return [(0, -1)] if source.bytes else []
    with _opened(source.url) as file:
        stripes = file.nstripes
    parts = max(1, min(stripes, source.bytes // SLICE_BYTES))
    bounds = [stripes * number // parts for number in range(parts + 1)]
    return list(pairwise(bounds))


def check_columns(part: FileSlice, layout: Layout) -> tuple[str, ...]:
    """The columns to read of a file.

    Raises:
        InputError: the file is no ORC or lacks a column.
    """
    with _opened(part.url) as file:
        return tuple(BatchParser(file.schema, layout, json.loads(part.folders), part.url).columns)


def read_slice(part: FileSlice, layout: Layout) -> Iterator[ParsedBatch]:
    """The records of a slice; columns keep their ORC type.

    Raises:
        InputError: the file is no ORC, is damaged, lacks a column, or has a time outside of the
            years 1677 to 2262, which Arrow cannot read from ORC.
    """
    with _opened(part.url) as file:
        parser = BatchParser(file.schema, layout, json.loads(part.folders), part.url)
        end = file.nstripes if part.end < 0 else part.end
        row = 1 + _rows_before(file, part.start)
        for number in range(part.start, end):
            stripe = file.read_stripe(number, parser.columns)
            for start in range(0, stripe.num_rows, BATCH_ROWS):
                batch = stripe.slice(start, BATCH_ROWS)
                yield parser.parse(batch, np.arange(row, row + batch.num_rows))
                row += batch.num_rows


def _rows_before(file: pa.orc.ORCFile, stripe: int) -> int:
    """The number of rows in the stripes before one; Arrow tells it of no stripe unread."""
    first = file.schema.names[:1]
    return sum(file.read_stripe(number, first).num_rows for number in range(stripe))


@contextmanager
def _opened(url: str) -> Iterator[pa.orc.ORCFile]:
    """An open file; Arrow's errors inside the block become an InputError."""
    with open_source(url) as raw:
        try:
            file = pa.orc.ORCFile(raw)
        except (OSError, pa.ArrowException) as error:
            raise InputError(f"is no ORC file: {error}", where=url) from None
        try:
            yield file
        except (OSError, pa.ArrowException) as error:
            raise InputError(f"cannot be read: {error}", where=url) from None
