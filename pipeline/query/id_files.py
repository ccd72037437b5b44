"""Files that list ids: one on each line, or a column of a CSV, TSV or Parquet file.

They may be compressed, and in UTF-16 or UTF-32 with a byte-order mark.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import BinaryIO

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from embedmill.pipeline.errors import InputError
from embedmill.pipeline.prepare.parse.ids import id_text
from embedmill.pipeline.prepare.readers.compression import decompressed, without_codec
from embedmill.pipeline.prepare.readers.encodings import file_encoding, in_utf8
from embedmill.pipeline.store.sources import open_source

__all__ = ["IdColumn", "read_ids"]

_CHUNK = 4 << 20
_ROWS = 1 << 16
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class IdColumn:
    """Where the ids of a file stand.

    Attributes:
        name: the column, or its number from 1 in a file without header; "" for the only one
            there is, or for `usual` among several.
        usual: see `name`.
        header: whether the first line names the columns; None: it does in a file of several
            columns, and in one of a single column unless the line is an id.
        is_id: whether a text is an id that the run knows.
        note: called with a sentence on what was taken for a header.
    """

    name: str = ""
    usual: str = ""
    header: bool | None = None
    is_id: Callable[[str], bool] = lambda _: False
    note: Callable[[str], None] = lambda _: None


def read_ids(url: str, column: IdColumn | None = None) -> Iterator[pa.Array]:
    """The ids of a file in order, as arrays of strings; an empty id is null or "".

    Args:
        url: a path or fsspec URL; .csv, .tsv and .parquet files have columns, every other one
            has an id on each line. Text may be compressed.
        column: which column has the ids.

    Raises:
        InputError: no such file or column, bytes that are not UTF-8, or a file that cannot be
            parsed.
    """
    column = column or IdColumn()
    ending = without_codec(url).rpartition(".")[2]
    read = _FORMATS.get(ending, _lines)
    if column.name and read is _lines:
        raise InputError(
            f"column '{column.name}' of a file with an id on each line",
            where=url,
            todo="Leave the column out, or give a .csv, .tsv or .parquet file",
        )
    try:
        with open_source(url) as raw:
            yield from read(raw, url, column)
    except FileNotFoundError:
        raise InputError("no such file", where=url) from None
    except pa.ArrowInvalid as error:
        raise InputError(
            f"cannot be read as a list of ids: {str(error).splitlines()[0]}", where=url
        ) from error


def _text(raw: BinaryIO, url: str) -> Iterator[bytes]:
    """The bytes of a text file, decompressed and in UTF-8, a piece at a time."""
    stream = decompressed(raw, url)
    pieces = iter(lambda: stream.read(_CHUNK), b"")
    first = next(pieces, b"")
    encoding = file_encoding(first, "utf-8")
    pieces = chain([first], pieces)
    if encoding != "utf-8":
        pieces = (piece for piece in in_utf8(pieces, encoding) if piece)
    yield next(pieces, b"").removeprefix(_BOM)
    yield from pieces


def _lines(raw: BinaryIO, url: str, column: IdColumn) -> Iterator[pa.Array]:
    done, rest = 0, b""
    for piece in _text(raw, url):
        *lines, rest = (rest + piece).split(b"\n")
        skipped = int(bool(column.header) and not done and bool(lines))
        yield _decoded(lines, url, done)[skipped:]
        done += len(lines)
    if rest:
        yield _decoded([rest], url, done)[int(bool(column.header) and not done) :]


def _decoded(lines: list[bytes], url: str, done: int) -> pa.Array:
    lines = [line.removesuffix(b"\r") for line in lines]
    try:
        return pa.array([line.decode() for line in lines], pa.string())
    except UnicodeDecodeError as error:
        line = done + lines.index(error.object) + 1
        raise InputError(f"line {line:,} is not UTF-8", where=url) from None


def _separated(separator: str) -> Callable[[BinaryIO, str, IdColumn], Iterator[pa.Array]]:
    def read(raw: BinaryIO, url: str, column: IdColumn) -> Iterator[pa.Array]:
        pieces = _text(raw, url)
        first = next(pieces)
        start = io.StringIO(first.decode("utf-8", "replace"), newline="")
        names = next((one for one in csv.reader(start, delimiter=separator) if one), [])
        if not names:
            return
        if not _has_header(names, column, url):
            names = [str(number + 1) for number in range(len(names))]
            lines = pa.csv.ReadOptions(column_names=names)
        else:
            lines = pa.csv.ReadOptions()
        name = _chosen(names, column, url)
        convert = pa.csv.ConvertOptions(
            include_columns=[name], column_types={name: pa.string()}, strings_can_be_null=False
        )
        parse = pa.csv.ParseOptions(delimiter=separator, newlines_in_values=True)
        stream = io.BufferedReader(_PieceReader(chain([first], pieces)), _CHUNK)
        with pa.csv.open_csv(stream, lines, parse, convert) as reader:
            for batch in reader:
                yield batch.column(0)

    return read


def _has_header(names: Sequence[str], column: IdColumn, url: str) -> bool:
    """Whether the first line of a file, `names`, has the names of columns."""
    shown = ", ".join(repr(name[:40]) for name in names)
    if column.header is not None:
        return column.header
    if len(names) == 1 and names[0] != column.name and column.is_id(names[0]):
        column.note(f"{url}: no header, as its first line, {shown}, is an id; or give --header")
        return False
    column.note(f"{url}: its first line, {shown}, is taken for a header; or give --no-header")
    return True


class _PieceReader(io.RawIOBase):
    """Pieces of a file as a file."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._rest = b""

    def readable(self) -> bool:
        """Always."""
        return True

    def readinto(self, buffer: object) -> int:
        """Fill the buffer with the bytes that come next; 0 at the end."""
        view = memoryview(buffer)  # type: ignore[arg-type]
        while not self._rest:
            piece = next(self._pieces, None)
            if piece is None:
                return 0
            self._rest = piece
        count = min(len(view), len(self._rest))
        view[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count


def _parquet(raw: BinaryIO, url: str, column: IdColumn) -> Iterator[pa.Array]:
    file = pq.ParquetFile(raw)
    name = _chosen(file.schema_arrow.names, column, url)
    for batch in file.iter_batches(_ROWS, columns=[name]):
        yield id_text(batch.column(0), name).text


def _chosen(names: Sequence[str], column: IdColumn, url: str) -> str:
    """The column asked for, the only one, or the usual one."""
    asked, usual = column.name, column.usual
    if asked in names:
        return asked
    if not asked and len(names) == 1:
        return names[0]
    if not asked and usual in names:
        return usual
    said = f"no column '{asked}'" if asked else "several columns"
    raise InputError(
        f"{said}; there are {', '.join(names) or 'none'}",
        where=url,
        todo="Say with --column which one has the ids",
    )


_FORMATS: dict[str, Callable[[BinaryIO, str, IdColumn], Iterator[pa.Array]]] = {
    "csv": _separated(","),
    "tsv": _separated("\t"),
    "parquet": _parquet,
}
