"""Slices of raw files, and the tasks that read them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import Any

import pyarrow as pa

__all__ = ["FileSlice", "ReadTask", "read_tasks", "slices_table"]


@dataclass(frozen=True)
class FileSlice:
    """A part of a raw file: bytes [start, end) of text, row groups [start, end) of Parquet.

    Attributes:
        number: position in the order of paths, names and parts.
        url: the file.
        name: what rejects call the file; it does not depend on the machine.
        start: first byte or row group.
        end: the one after the last; -1 for the end of the file.
        bytes: size of the slice.
        format: of the file, a key of `FORMATS`.
        folders: values of the file's Hive folders, as JSON.
        first_line: line number of its first line, from 1.
        ends_file: whether it is the file's last slice.
        table: of a table's data file, how its rows are read: a `TableView`, encoded.
        task: number of the task that reads it.
    """

    number: int
    url: str
    name: str
    start: int
    end: int
    bytes: int
    format: str = ""
    folders: str = "{}"
    first_line: int = 1
    ends_file: bool = True
    table: str = ""
    task: int = 0


@dataclass(frozen=True)
class ReadTask:
    """Consecutive slices that one task reads, in order."""

    number: int
    slices: tuple[FileSlice, ...]


_SCHEMA = pa.schema(
    [
        ("number", pa.int64()),
        ("url", pa.string()),
        ("name", pa.string()),
        ("start", pa.int64()),
        ("end", pa.int64()),
        ("bytes", pa.int64()),
        ("format", pa.string()),
        ("folders", pa.string()),
        ("first_line", pa.int64()),
        ("ends_file", pa.bool_()),
        ("table", pa.string()),
        ("task", pa.int64()),
    ]
)


def slices_table(slices: Sequence[FileSlice]) -> pa.Table:
    """A row per slice, to be distributed over tasks by the column `task`."""
    return pa.Table.from_pylist([asdict(one) for one in slices], schema=_SCHEMA)


def read_tasks(rows: Iterable[Mapping[str, Any]]) -> Iterator[ReadTask]:
    """The read tasks among rows of a `slices_table`, in order."""
    slices = sorted((FileSlice(**row) for row in rows), key=lambda one: one.number)
    for number, group in groupby(slices, lambda one: one.task):
        yield ReadTask(number, tuple(group))
