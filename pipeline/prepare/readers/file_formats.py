"""The source formats and their readers."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from embedmill.pipeline.errors import InputError
from embedmill.pipeline.prepare.readers import (
    avro,
    columnar,
    delimited,
    jsonlines,
    orc,
    table_files,
    text_lines,
)
from embedmill.pipeline.prepare.readers.compression import codec_of, decompressed, without_codec
from embedmill.pipeline.prepare.readers.file_slice import FileSlice
from embedmill.pipeline.prepare.readers.layout import Layout
from embedmill.pipeline.prepare.readers.parsed_batch import ParsedBatch
from embedmill.pipeline.store.sources import Source, open_source

__all__ = ["FORMATS", "Format", "format_of", "read_slice"]

_EXTENSIONS = {
    ".tsv": "tsv", ".tab": "tsv", ".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl",
    ".json": "jsonl", ".parquet": "parquet", ".pq": "parquet", ".orc": "orc", ".avro": "avro",
    ".txt": "delimited", ".log": "delimited", ".dat": "delimited",
}  # fmt: skip


_FIRST_BYTES = {b"PAR1": "parquet", b"ORC": "orc", b"Obj\x01": "avro", b"{": "jsonl", b"[": "jsonl"}


@dataclass(frozen=True)
class Format:
    """How files of a format are read.

    Attributes:
        read_slice: parses a slice.
        slice_file: the slices [start, end) that a file can be divided into.
        check_columns: the columns of the file; raises InputError where it lacks one that the
            config names.
        has_lines: whether its files are text, whose slices are of bytes and need their line
            numbers counted.
    """

    read_slice: Callable[[FileSlice, Layout], Iterator[ParsedBatch]]
    slice_file: Callable[[Source, Layout], list[tuple[int, int]]]
    check_columns: Callable[[FileSlice, Layout], tuple[str, ...]]
    has_lines: bool = False


_DELIMITED = Format(delimited.read_slice, text_lines.slice_file, delimited.check_columns, True)
_TABLE = Format(table_files.read_slice, table_files.slice_file, table_files.check_columns)
FORMATS: dict[str, Format] = {
    "tsv": _DELIMITED,
    "csv": _DELIMITED,
    "delimited": _DELIMITED,
    "jsonl": Format(jsonlines.read_slice, text_lines.slice_file, jsonlines.check_columns, True),
    "parquet": Format(columnar.read_slice, columnar.slice_file, columnar.check_columns),
    "orc": Format(orc.read_slice, orc.slice_file, orc.check_columns),
    "delta": _TABLE,
    "iceberg": _TABLE,
    "avro": Format(avro.read_slice, avro.slice_file, avro.check_columns),
}


def read_slice(part: FileSlice, layout: Layout) -> Iterator[ParsedBatch]:
    """The records of a slice, a batch at a time.

    Raises:
        InputError: the file is damaged, gone or lacks a column.
    """
    return FORMATS[layout.format].read_slice(part, layout)


def format_of(configured: str, url: str) -> str:
    """The format of a file: `configured`, or where that is "auto" by the end of its name.

    Where the name ends like that of no format, all but delimited text is known by its first bytes.

    Raises:
        InputError: the format is not known, or its compression is not supported.
    """
    if configured in ("parquet", "orc", "avro"):
        return configured  # its compression is inside
    codec_of(url)
    if configured != "auto":
        return configured
    name = without_codec(url)
    for extension, kind in _EXTENSIONS.items():
        if name.endswith(extension):
            return kind
    start = _start(url)
    for first, kind in _FIRST_BYTES.items():
        if start.startswith(first):
            return kind
    raise InputError(
        f"its name ends like that of no format; there are {', '.join(_EXTENSIONS)}",
        where=url,
        todo="Set events.format, or name paths without it",
    )


def _start(url: str) -> bytes:
    """The first bytes of a file, decompressed, without blanks before them."""
    with open_source(url) as raw:
        start: bytes = decompressed(raw, url).read(64)
    return start.removeprefix(codecs.BOM_UTF8).lstrip()
