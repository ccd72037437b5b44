"""Avro files, a block at a time. A record's line number is its row number, from 1.

Values are decoded by fastavro as the bare types that are stored (a timestamp is a whole number)
and become Arrow columns of the type that the schema means, as if they came from Parquet.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from embedmill.pipeline.errors import InputError, MachineError
from embedmill.pipeline.prepare.readers.avro_schema import RecordDecoder, record_decoder
from embedmill.pipeline.prepare.readers.columnar import BatchParser
from embedmill.pipeline.prepare.readers.file_slice import FileSlice
from embedmill.pipeline.prepare.readers.layout import Layout
from embedmill.pipeline.prepare.readers.parsed_batch import ParsedBatch
from embedmill.pipeline.store.sources import Source, open_source

__all__ = ["check_columns", "read_slice", "slice_file"]

_BATCH_ROWS = 1 << 15  # Python objects until they are a batch


def slice_file(source: Source, layout: Layout) -> list[tuple[int, int]]:
    """One slice: the file; none where it is empty."""
    return [(0, -1)] if source.bytes else []


def check_columns(part: FileSlice, layout: Layout) -> tuple[str, ...]:
    """The columns to read of a file.

    Raises:
        InputError: the file is no Avro or lacks a column.
    """
    with _opened(part.url) as (_, decoder):
        folders = json.loads(part.folders)
        return tuple(BatchParser(decoder.schema, layout, folders, part.url).columns)


def read_slice(part: FileSlice, layout: Layout) -> Iterator[ParsedBatch]:
    """The records of a slice; columns have the Arrow type of their Avro type.

    Raises:
        InputError: the file is no Avro, is damaged or lacks a column.
        MachineError: fastavro, or the package of the file's codec, is not installed.
    """
    with _opened(part.url) as (blocks, decoder):
        parser = BatchParser(decoder.schema, layout, json.loads(part.folders), part.url)
        # Paths into nested records are fields of a column that is read whole.
        columns = [n for n in decoder.schema.names if _is_read(n, parser.columns)]
        row = 1
        for records in _batches(blocks, decoder, part.url):
            batch = decoder.batch(records, columns)
            yield parser.parse(batch, np.arange(row, row + batch.num_rows))
            row += batch.num_rows


def _is_read(column: str, paths: list[str]) -> bool:
    return any(path == column or path.startswith(f"{column}.") for path in paths)


def _batches(blocks: Any, decoder: RecordDecoder, url: str) -> Iterator[list[dict[str, Any]]]:
    """Records of the blocks, _BATCH_ROWS at a time."""
    records: list[dict[str, Any]] = []
    for block in _explained(blocks, url):
        for data in [block.bytes_] * block.num_records:
            try:
                records.append(decoder.decode(data))
            except (ValueError, EOFError, IndexError, OverflowError) as error:
                raise _damaged(error, url) from None
            if len(records) == _BATCH_ROWS:
                yield records
                records = []
    if records:
        yield records


def _explained(blocks: Any, url: str) -> Iterator[Any]:
    """The blocks; what fastavro raises about them, of many types, has a sentence."""
    while True:
        try:
            block = next(blocks)
        except StopIteration:
            return
        except Exception as error:
            shown = str(error)
            if "codec" in shown and "install" in shown:
                raise MachineError(shown, where=url, todo="pip install 'embedmill[avro]'") from None
            raise _damaged(error, url) from None
        yield block


def _damaged(error: Exception, url: str) -> InputError:
    return InputError(f"cannot be read: {error or type(error).__name__}", where=url)


@contextmanager
def _opened(url: str) -> Iterator[tuple[Any, RecordDecoder]]:
    """The blocks of an open file, and what decodes their records."""
    try:
        import fastavro
    except ModuleNotFoundError:
        raise MachineError(
            "Avro files are read by fastavro, which is not installed",
            where=url,
            todo="pip install 'embedmill[avro]'",
        ) from None
    with open_source(url) as raw:
        try:
            blocks = fastavro.block_reader(raw)
            decoder = record_decoder(blocks.writer_schema)
        except (ValueError, EOFError, StopIteration, KeyError, TypeError, IndexError) as error:
            raise InputError(f"is no Avro file of records: {error}", where=url) from None
        yield iter(blocks), decoder
