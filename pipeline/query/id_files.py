"""Files that list ids: one on each line, or a column of a CSV, TSV or Parquet file."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Sequence
from typing import BinaryIO

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from embedmill.pipeline.errors import InputError
from embedmill.pipeline.prepare.parse.ids import id_text
from embedmill.pipeline.store.sources import open_source

__all__ = ["read_ids"]

_CHUNK = 4 << 20
_ROWS = 1 << 16


def read_ids(url: str, column: str = "", usual: str = "") -> Iterator[pa.Array]:
    """The ids of a file in order, as arrays of strings; an empty id is null or "".

    Args:
        url: a path or fsspec URL. Files that end in .csv, .tsv or .parquet have columns; any other
            file has an id on each line.
        column: the column with the ids; "" for the only one, or for `usual` if there are several.
        usual: the column that is read if there are several and none is named.

    Raises:
        InputError: no such file or column, bytes that are not UTF-8, or a file that cannot be
            parsed.
    """
    ending = url.rpartition(".")[2].lower()
    read = _FORMATS.get(ending, _lines)
    if column and read is _lines:
        raise InputError(
            f"column '{column}' of a file with an id on each line",
            where=url,
            todo="Leave the column out, or give a .csv, .tsv or .parquet file",
        )
    try:
        with open_source(url) as raw:
            yield from read(raw, url, (column, usual))
    except FileNotFoundError:
        raise InputError("no such file", where=url) from None
    except pa.ArrowInvalid as error:
        raise InputError(
            f"cannot be read as a list of ids: {str(error).splitlines()[0]}", where=url
        ) from error


def _lines(raw: BinaryIO, url: str, _: tuple[str, str]) -> Iterator[pa.Array]:
    done, rest = 0, b""
    while chunk := raw.read(_CHUNK):
        if not done and not rest:
            chunk = chunk.removeprefix(b"\xef\xbb\xbf")
        *lines, rest = (rest + chunk).split(b"\n")
        yield _decoded(lines, url, done)
        done += len(lines)
    if rest:
        yield _decoded([rest], url, done)


def _decoded(lines: list[bytes], url: str, done: int) -> pa.Array:
    lines = [line.removesuffix(b"\r") for line in lines]
    try:
        return pa.array([line.decode() for line in lines], pa.string())
    except UnicodeDecodeError as error:
        line = done + lines.index(error.object) + 1
        raise InputError(f"line {line:,} is not UTF-8", where=url) from None


def _separated(separator: str) -> Callable[[BinaryIO, str, tuple[str, str]], Iterator[pa.Array]]:
    def read(raw: BinaryIO, url: str, column: tuple[str, str]) -> Iterator[pa.Array]:
        start = raw.read(_CHUNK).decode("utf-8-sig", "replace")
        names = next(csv.reader(io.StringIO(start), delimiter=separator), [])
        name = _chosen(names, column, url)
        raw.seek(0)
        convert = pa.csv.ConvertOptions(
            include_columns=[name], column_types={name: pa.string()}, strings_can_be_null=False
        )
        parse = pa.csv.ParseOptions(delimiter=separator, newlines_in_values=True)
        with pa.csv.open_csv(raw, parse_options=parse, convert_options=convert) as reader:
            for batch in reader:
                yield batch.column(0)

    return read


def _parquet(raw: BinaryIO, url: str, column: tuple[str, str]) -> Iterator[pa.Array]:
    file = pq.ParquetFile(raw)
    name = _chosen(file.schema_arrow.names, column, url)
    for batch in file.iter_batches(_ROWS, columns=[name]):
        yield id_text(batch.column(0), name).text


def _chosen(names: Sequence[str], column: tuple[str, str], url: str) -> str:
    """The column asked for, the only one, or the usual one."""
    asked, usual = column
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


_FORMATS: dict[str, Callable[[BinaryIO, str, tuple[str, str]], Iterator[pa.Array]]] = {
    "csv": _separated(","),
    "tsv": _separated("\t"),
    "parquet": _parquet,
}
