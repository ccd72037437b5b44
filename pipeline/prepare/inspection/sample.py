"""Records of a log that has no config yet, and the keys of the config that they were read with."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa

from embedmill.pipeline.config import ItemsConfig
from embedmill.pipeline.errors import InputError
from embedmill.pipeline.prepare.inspection.roles import known_names
from embedmill.pipeline.prepare.inspection.text_dialect import (
    file_start,
    has_header,
    is_marked,
    text_dialect,
    text_encoding,
)
from embedmill.pipeline.prepare.readers.encodings import file_encoding
from embedmill.pipeline.prepare.readers.file_formats import read_slice
from embedmill.pipeline.prepare.readers.file_slice import FileSlice
from embedmill.pipeline.prepare.readers.hive_folders import RawFile
from embedmill.pipeline.prepare.readers.json_documents import is_document
from embedmill.pipeline.prepare.readers.layout import Layout
from embedmill.pipeline.prepare.readers.parsed_batch import ParsedBatch
from embedmill.pipeline.prepare.readers.read_plan import layout_of, raw_files, whole_file

__all__ = ["LogSample", "read_sample"]

_MAGIC = {b"PAR1": "parquet", b"ORC": "orc", b"Obj\x01": "avro"}
_ROWS = 4000  # of each file that is looked at
_FILES = 4
_DEPTH = 3  # of paths into nested records


@dataclass(frozen=True)
class LogSample:
    """Some records of a log.

    Attributes:
        keys: of the section `events`, by which they were read.
        notes: by key, what is unsure of it.
        columns: values by column or path, in the order of the first record; None where missing.
        lists: paths of lists of objects.
        rows: number of records.
        whole: whether these are all records of the log.
    """

    keys: dict[str, Any]
    notes: dict[str, str]
    columns: Mapping[str, Sequence[Any]]
    lists: Sequence[str]
    rows: int
    whole: bool


def read_sample(paths: Sequence[str], encoding: str = "") -> LogSample:
    """Read some records of each of the first files of a log.

    Args:
        paths: files, folders, globs or URLs.
        encoding: of its text; empty: by its bytes.

    Raises:
        InputError: a path names nothing, or no format is recognised.
    """
    named = raw_files(_reading(paths, {"format": "auto"}))
    files = list(islice((file for file in named if _has_text(file)), _FILES))
    if not files:
        raise InputError("the log is empty", where=", ".join(paths))
    keys, notes, formats = _format_keys(files, encoding)
    records: list[dict[str, Any]] = []
    whole = len(named) <= _FILES
    for number, (file, kind) in enumerate(zip(files, formats, strict=False)):
        part = whole_file(number, file, kind)
        layout = replace(
            layout_of(_reading(paths, keys), kind), wanted=(), defaults={}, ids=frozenset()
        )
        found, ended = _first_records(part, layout)
        folders = {n: v for n, v in file.folders.items() if not part.table}
        records += [{**folders, **record} for record in found]
        whole = whole and ended
    columns, lists = _columns(records)
    return LogSample(keys, notes, columns, lists, len(records), whole)


def _has_text(file: RawFile) -> bool:
    """Whether a file has anything but blanks."""
    if file.snapshot or not file.source.bytes:
        return bool(file.source.bytes)
    start = file_start(file.source.url)
    return bool(_decoded(start, text_encoding(start)).strip())


def _decoded(start: bytes, encoding: str) -> str:
    """The text, without its byte-order mark."""
    return start.decode(file_encoding(start[:4], encoding), errors="replace").lstrip("\ufeff")


def _first_records(part: FileSlice, layout: Layout) -> tuple[list[dict[str, Any]], bool]:
    """The first records of a file, and whether these are all."""
    found: list[dict[str, Any]] = []
    for batch in read_slice(part, layout):
        if len(found) >= _ROWS:
            return found, False
        found += _records(batch, _ROWS - len(found), part.format)
        if batch.rows > _ROWS:
            return found, False
    return found, True


def _reading(paths: Sequence[str], keys: Mapping[str, Any]) -> ItemsConfig:
    """A section by which all columns of the files are read, as those of metadata are."""
    known = {name: value for name, value in keys.items() if name in ItemsConfig.model_fields}
    return ItemsConfig.model_validate({"paths": list(paths), **known})


def _format_keys(
    files: Sequence[RawFile], encoding: str
) -> tuple[dict[str, Any], dict[str, str], list[str]]:
    """The keys of format by what is in the first files, what is unsure, and each one's format."""
    found = [_keys_of(file, encoding) for file in files]
    keys, notes = found[0]
    formats = [one["format"] for one, _ in found]
    if len(set(formats)) > 1:
        keys = {**keys, "format": "auto"}
        notes["format"] = f"the first files are {' and '.join(dict.fromkeys(formats))}"
    if "columns" in keys:
        notes["columns"] = "no header was found; these names are made up"
    return keys, notes, formats


def _keys_of(file: RawFile, encoding: str) -> tuple[dict[str, Any], dict[str, str]]:
    """The keys of one file's format, and what is unsure of them."""
    if file.snapshot:
        return {"format": file.snapshot.kind}, {}
    start = file_start(file.source.url)
    for magic, kind in _MAGIC.items():
        if start.startswith(magic):
            return {"format": kind}, {}
    keys: dict[str, Any] = {}
    notes: dict[str, str] = {}
    known = encoding or text_encoding(start)
    if known != "utf-8" and (encoding or not is_marked(start)):
        keys["encoding"] = known
    if known in ("cp1252", "latin-1") and not encoding:
        notes["encoding"] = "it is no Unicode, and bytes do not tell which other encoding it is"
    text = _decoded(start, known)
    lines = text.splitlines(keepends=True)
    text = "".join(lines[:-1] if len(lines) > 1 and not lines[-1].endswith("\n") else lines)
    if text.lstrip().startswith("{") or is_document(text.encode()):
        return {"format": "jsonl", **keys}, notes
    try:
        dialect = text_dialect(text, needs_separator=not file.folders)
    except InputError as error:
        raise InputError(error.what, where=file.source.url, todo=_TODO) from None
    keys |= _delimited_keys(dialect.separator, quoted=dialect.quoted)
    if dialect.escape:
        keys["escape"] = dialect.escape
        notes["escape"] = "there are backslashes before quotes"
    if not has_header(dialect.rows, known_names(dialect.rows[0] if dialect.rows else [])):
        width = max(len(row) for row in dialect.rows)
        keys["header"] = False
        keys["columns"] = [f"column_{number + 1}" for number in range(width)]
    return {"format": keys.pop("format"), **keys}, notes


_TODO = "Is it a log? Text with a separator, JSON lines, Parquet, ORC, Avro and tables are read"


def _delimited_keys(separator: str, *, quoted: bool) -> dict[str, Any]:
    if separator == ",":
        return {"format": "csv"}
    if separator == "\t" and not quoted:
        return {"format": "tsv"}
    return {"format": "delimited", "separator": separator}


def _records(batch: ParsedBatch, most: int, kind: str) -> Iterator[dict[str, Any]]:
    """Records of a batch as Python objects."""
    rows = min(most, batch.rows)
    if kind == "jsonl":
        for raw in batch.raw(np.arange(rows)).to_pylist():
            try:
                record = json.loads(raw)
            except ValueError:
                continue
            if isinstance(record, dict):
                yield record
        return
    columns = {name: _python_values(column, rows) for name, column in batch.columns.items()}
    for row in range(rows):
        yield {name: values[row] for name, values in columns.items()}


def _python_values(column: Any, rows: int) -> list[Any]:
    """Values of a column; None where Python has no such value, as a time after the year 9999."""
    values: list[Any] = []
    for value in column.slice(0, rows):
        try:
            values.append(value.as_py())
        except (ValueError, ArithmeticError, LookupError, pa.ArrowException):
            values.append(None)
    return values


def _columns(records: Sequence[dict[str, Any]]) -> tuple[dict[str, list[Any]], list[str]]:
    """Values by path, a value or None for each record, and paths of lists of objects."""
    flat: list[dict[str, Any]] = []
    lists: dict[str, None] = {}
    for record in records:
        values: dict[str, Any] = {}
        _flatten(record, "", values, lists, _DEPTH)
        flat.append(values)
    names = dict.fromkeys(name for values in flat for name in values)
    columns = {n: [_or_none(values.get(n)) for values in flat] for n in names}
    return columns, list(lists)


def _flatten(
    record: dict[str, Any], above: str, values: dict[str, Any], lists: dict[str, None], depth: int
) -> None:
    for name, value in record.items():
        path = f"{above}{name}"
        if isinstance(value, dict) and depth:
            _flatten(value, f"{path}.", values, lists, depth - 1)
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            lists[path] = None
            _flatten(value[0], f"{path}.", values, {}, depth - 1)
        elif value != []:
            values[path] = value


def _or_none(value: Any) -> Any:
    return None if value == "" else value
