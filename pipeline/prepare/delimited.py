"""Delimited text: TSV, CSV with quotes (RFC 4180), any separator.

Lines without a quote are split by Arrow, a chunk at a time; the others go through Python's
csv. A quoted field may hold separators and newlines. A quote that is never closed spoils its
own line only: it is rejected and reading goes on at the next.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import InputError
from pipeline.prepare.block import Block, Layout, Rejects, Split, shortened
from pipeline.prepare.text import Chunk, chunks
from pipeline.storage import Source

__all__ = ["blocks", "cut", "header_of"]

_RECORD_LINES = 1000  # a quoted record spans at most so many lines


def cut(source: Source, layout: Layout) -> list[tuple[int, int]]:
    """Where a file may be cut: nowhere yet, it is read whole."""
    return [(0, -1)] if source.bytes else []


def blocks(split: Split, layout: Layout) -> Iterator[Block]:
    """The records of a file.

    Raises:
        InputError: the header lacks a column that the config names.
    """
    names = None if layout.header else layout.names
    records = _Records(layout)
    for chunk in chunks(split.url, layout.encoding):
        if names is None:
            names = header_of(chunk, layout, split.url)
            chunk = _without_first(chunk)
        elif not records.names:
            check_names(names, layout, split.url)
        records.names = names
        yield records.block(chunk)
    if names is not None and records.names:
        yield records.rest()


def header_of(chunk: Chunk, layout: Layout, where: str) -> tuple[str, ...]:
    """The column names in the first line of a file.

    Raises:
        InputError: a wanted column is not there, or there twice, or the file is no such text.
    """
    line = chunk.lines[0].as_py()
    if 0 in chunk.bad or "\0" in line:
        raise InputError(
            f"its first line is no text in {layout.encoding}",
            where=where,
            todo="Check events.format and events.encoding",
        )
    names = tuple(_fields(line, layout) or ())
    check_names(names, layout, where)
    return names


def check_names(names: tuple[str, ...], layout: Layout, where: str) -> None:
    """Raise InputError unless every wanted column is there once."""
    for wanted in layout.wanted:
        count = names.count(wanted)
        if count == 1:
            continue
        shown = ", ".join(repr(n[:40]) for n in names[:20])
        if count:
            what = f"has {count} columns '{wanted}'"
        else:
            what = f"has no column '{wanted}'; it has {shown}"
        todo = f"Is the separator {layout.separator!r}?" if len(names) == 1 else ""
        raise InputError(what, where=where, todo=todo or "Check the column names in the config")


@dataclass
class _Records:
    """Turns chunks of lines into blocks; keeps lines of a quoted record that goes on."""

    layout: Layout
    names: tuple[str, ...] = ()
    _open: Chunk | None = field(default=None, init=False)

    def block(self, chunk: Chunk) -> Block:
        """The records that end in the chunk."""
        if self._open is not None:
            chunk = _joined(self._open, chunk)
            self._open = None
        return self._parse(chunk, at_end=False)

    def rest(self) -> Block:
        """What is left when the file has ended."""
        chunk = self._open or Chunk(1, pa.array([], pa.string()))
        self._open = None
        return self._parse(chunk, at_end=True)

    def _parse(self, chunk: Chunk, *, at_end: bool) -> Block:
        quotes = self._quotes(chunk)
        if quotes is None:
            return self._plain(chunk, np.arange(len(chunk.lines)))
        quoted = _Quoted(self.layout, self.names, chunk)
        consumed = quoted.read(quotes, at_end=at_end)
        if consumed < len(chunk.lines):
            self._open = _tail(chunk, consumed)
        used = np.zeros(len(chunk.lines), bool)
        used[consumed:] = True
        used[quoted.taken] = True
        return _merged(self._plain(chunk, np.flatnonzero(~used)), quoted.block())

    def _quotes(self, chunk: Chunk) -> npt.NDArray[np.int64] | None:
        """Quote characters per line, or None where there is none."""
        if not self.layout.quote:
            return None
        counts = pc.count_substring(chunk.lines, self.layout.quote).to_numpy(zero_copy_only=False)
        return counts if counts.any() else None

    def _plain(self, chunk: Chunk, rows: npt.NDArray[np.int64]) -> Block:
        """Records of lines without quotes."""
        lines = chunk.lines if len(rows) == len(chunk.lines) else chunk.lines.take(pa.array(rows))
        numbers = chunk.numbers[rows]
        parts = pc.split_pattern(lines, self.layout.separator)
        widths = pc.list_value_length(parts).to_numpy(zero_copy_only=False)
        sound = widths == len(self.names)
        if chunk.bad:
            sound &= ~np.isin(rows, list(chunk.bad))
        rejects = _misshapen(chunk, rows[~sound])
        if not sound.all():
            mask = pa.array(sound)
            parts, lines, numbers = parts.filter(mask), lines.filter(mask), numbers[sound]
        columns = {
            name: pc.list_element(parts, position)
            for position, name in enumerate(self.names)
            if not self.layout.wanted or name in self.layout.wanted
        }
        return Block(columns, numbers, lambda chosen: shortened(lines.take(chosen)), rejects)


class _Quoted:
    """The records of a chunk that have quotes, read one by one."""

    def __init__(self, layout: Layout, names: tuple[str, ...], chunk: Chunk) -> None:
        self.taken: list[int] = []
        self._layout = layout
        self._names = names
        self._chunk = chunk
        self._rows: list[list[str]] = []
        self._numbers: list[int] = []
        self._raw: list[str] = []
        self._rejects = Rejects([], [], [])

    def read(self, quotes: npt.NDArray[np.int64], *, at_end: bool) -> int:
        """Read all records that have quotes; returns how many lines of the chunk are done."""
        lines = self._chunk.lines.to_pylist()
        odd = np.flatnonzero(quotes % 2)
        position = 0
        for start in np.flatnonzero(quotes).tolist():
            if start < position:
                continue  # inside the record before
            end = start + 1
            fields = _fields(lines[start], self._layout)
            if quotes[start] % 2 and (fields is None or len(fields) != len(self._names)):
                later = odd[np.searchsorted(odd, start + 1) :]
                close = int(later[0]) if len(later) else -1
                if close < 0 and not at_end and len(lines) - start < _RECORD_LINES:
                    return start
                if 0 < close < start + _RECORD_LINES:
                    joined = _fields("\n".join(lines[start : close + 1]), self._layout)
                    if joined is not None and len(joined) == len(self._names):
                        fields, end = joined, close + 1
            self._take(start, end, fields, lines)
            position = end
        return len(lines)

    def block(self) -> Block:
        """What was read."""
        columns = {
            name: pa.array([row[position] for row in self._rows], pa.string())
            for position, name in enumerate(self._names)
            if not self._layout.wanted or name in self._layout.wanted
        }
        raw = pa.array([text.encode() for text in self._raw], pa.binary())
        numbers = np.array(self._numbers, np.int64)
        return Block(columns, numbers, lambda rows: shortened(raw.take(rows)), self._rejects)

    def _take(self, start: int, end: int, fields: list[str] | None, lines: list[str]) -> None:
        self.taken += range(start, end)
        raw = "\n".join(lines[start:end])
        number = self._chunk.first + start
        if fields is not None and len(fields) == len(self._names):
            self._rows.append(fields)
            self._numbers.append(number)
            self._raw.append(raw)
            return
        self._rejects.lines.append(number)
        self._rejects.reasons.append("quote" if fields is None else "columns")
        self._rejects.raw.append(raw.encode())


def _fields(text: str, layout: Layout) -> list[str] | None:
    """The fields of one record, or None where its quotes are wrong."""
    if not layout.quote or layout.quote not in text:
        return text.split(layout.separator)
    reader = csv.reader(
        [text], delimiter=layout.separator, quotechar=layout.quote, doublequote=True, strict=True
    )
    try:
        return next(reader)
    except csv.Error:
        return None


def _misshapen(chunk: Chunk, rows: npt.NDArray[np.int64]) -> Rejects:
    rejects = Rejects([], [], [])
    for row in rows.tolist():
        rejects.lines.append(chunk.first + row)
        rejects.reasons.append("encoding" if row in chunk.bad else "columns")
        rejects.raw.append(chunk.bad.get(row) or chunk.lines[row].as_py().encode())
    return rejects


def _merged(one: Block, two: Block) -> Block:
    """Two blocks of one chunk as one."""
    columns = {n: pa.concat_arrays([one.columns[n], two.columns[n]]) for n in one.columns}
    rejects = Rejects(
        one.rejects.lines + two.rejects.lines,
        one.rejects.reasons + two.rejects.reasons,
        one.rejects.raw + two.rejects.raw,
    )

    def raw(rows: npt.NDArray[np.int64]) -> pa.Array:
        first = rows < one.rows
        parts = [one.raw(rows[first]), two.raw(rows[~first] - one.rows)]
        back = np.argsort(np.concatenate([np.flatnonzero(first), np.flatnonzero(~first)]))
        return pa.concat_arrays(parts).take(back)

    return Block(columns, np.concatenate([one.lines, two.lines]), raw, rejects)


def _without_first(chunk: Chunk) -> Chunk:
    return _tail(chunk, 1)


def _tail(chunk: Chunk, start: int) -> Chunk:
    bad = {position - start: raw for position, raw in chunk.bad.items() if position >= start}
    return Chunk(chunk.first + start, chunk.lines.slice(start), bad)


def _joined(one: Chunk, two: Chunk) -> Chunk:
    shift = len(one.lines)
    bad = one.bad | {position + shift: raw for position, raw in two.bad.items()}
    return Chunk(one.first, pa.concat_arrays([one.lines, two.lines]), bad)
