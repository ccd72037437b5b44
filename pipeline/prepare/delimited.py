"""Delimited text: TSV, CSV with quotes (RFC 4180), any separator.

Records of one line are split by Arrow, a chunk at a time; those with broken quotes or with
newlines in quotes go through Python's csv. A quote that is never closed spoils its own line
only: it is rejected and reading goes on at the next.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from pipeline.errors import InputError
from pipeline.prepare.block import Block, Ints, Layout, Rejects, Split, shortened
from pipeline.prepare.chunk import Chunk
from pipeline.prepare.columns import check_names, chosen, resolved
from pipeline.prepare.text import chunks, first_line
from pipeline.prepare.values import Mask, as_array

__all__ = ["blocks", "check"]

_RECORD_LINES = 1000  # a quoted record spans at most so many lines
_REPEATS = 1000  # RE2 repeats no more


def blocks(split: Split, layout: Layout) -> Iterator[Block]:
    """The records of a split.

    Raises:
        InputError: the header lacks a column that the config names.
    """
    pieces = chunks(split, layout)
    if layout.header and split.start == 0:
        head = next(pieces, None)
        if head is None:
            return
        names = _header_of(head, layout, split)
        pieces = chain([head.after(1)], pieces)
    else:
        names = check(split, layout)
    records = _Records(layout, names, json.loads(split.folders))
    for chunk in pieces:
        yield records.block(chunk)
    yield records.rest()


def check(split: Split, layout: Layout) -> tuple[str, ...]:
    """The column names of a file; none where it is empty.

    Raises:
        InputError: the file is no such text or lacks a column.
    """
    if layout.header:
        head = first_line(split.url, layout)
        return _header_of(head, layout, split) if head.size else ()
    check_names(layout.names, layout, json.loads(split.folders), split.url)
    return layout.names


def _header_of(chunk: Chunk, layout: Layout, split: Split) -> tuple[str, ...]:
    """The column names in the first line."""
    line = chunk.data.partition(b"\n")[0]
    if 0 in chunk.bad or b"\0" in line:
        raise InputError(
            f"its first line is no text in {layout.encoding}",
            where=split.url,
            todo="Check events.format and events.encoding",
        )
    names = tuple(_fields(line.decode(), layout) or ())
    check_names(names, layout, json.loads(split.folders), split.url)
    return names


@dataclass
class _Records:
    """Turns chunks of lines into blocks; keeps lines of a quoted record that goes on."""

    layout: Layout
    names: tuple[str, ...]
    folders: dict[str, str]
    _open: Chunk | None = field(default=None, init=False)

    def block(self, chunk: Chunk) -> Block:
        """The records that end in the chunk."""
        if self._open is not None:
            chunk = self._open.followed_by(chunk)
            self._open = None
        return self._parse(chunk, at_end=False)

    def rest(self) -> Block:
        """What is left when the file has ended."""
        chunk = self._open or Chunk(1, b"", 0)
        self._open = None
        return self._parse(chunk, at_end=True)

    def _parse(self, chunk: Chunk, *, at_end: bool) -> Block:
        found = self._at_once(chunk)
        if found is not None:
            return self._block(found, chunk.first + np.arange(chunk.size), chunk.lines_at)
        kinds = self._kinds(chunk)
        odd = _Irregular(self.layout, self.names, chunk)
        done = odd.read(kinds, at_end=at_end)
        if done < chunk.size:
            self._open = chunk.after(done)
        left = ~kinds.irregular & (np.arange(chunk.size) < done)
        left[odd.taken] = False
        left[chunk.bad] = False
        rows, wrong = np.flatnonzero(left & kinds.sound), np.flatnonzero(left & ~kinds.sound)
        rejects = [
            chunk.rejects_before(done),
            Rejects.of("columns", chunk.first + wrong, chunk.lines_at(wrong)),
            odd.rejects(),
        ]
        fields = self._fields_of(
            chunk.lines.take(pa.array(rows)),
            by_arrow=self._by_arrow(chunk.data),
            quoted=bool(kinds.quotes.any()),
        )
        records = odd.records()
        columns = {n: pa.concat_arrays([fields[n], records.columns[n]]) for n in fields}

        def raw(chosen: Ints) -> pa.Array:
            plain = chosen < len(rows)
            parts = [chunk.lines_at(rows[chosen[plain]]), records.raw(chosen[~plain] - len(rows))]
            order = np.concatenate([np.flatnonzero(plain), np.flatnonzero(~plain)])
            return pa.concat_arrays(parts).take(pa.array(np.argsort(order)))

        lines = np.concatenate([chunk.first + rows, records.lines])
        return self._block(columns, lines, raw, Rejects.joined(rejects))

    def _block(
        self,
        fields: dict[str, pa.Array],
        lines: Ints,
        raw: Callable[[Ints], pa.Array],
        rejects: Rejects | None = None,
    ) -> Block:
        columns = resolved(fields, len(lines), self.layout, self.folders)
        return Block(columns, lines, raw, rejects or Rejects.none())

    def _at_once(self, chunk: Chunk) -> dict[str, pa.Array] | None:
        """The fields of a chunk whose lines are all sound and without quotes, else None."""
        quote = self.layout.quote.encode()
        if not self._by_arrow(chunk.data) or len(chunk.bad) or (quote and quote in chunk.data):
            return None
        if b"\n\n" in chunk.data or chunk.data[:1] == b"\n":
            return None  # Arrow takes a blank line for a record of empty fields
        if not chunk.size:
            return self._nothing()
        try:
            found = self._read_csv(chunk.data, quoted=False)
        except pa.ArrowInvalid:
            return None
        rows = {len(column) for column in found.values()}
        return found if rows <= {chunk.size} else None  # a blank last line is none to Arrow

    def _kinds(self, chunk: Chunk) -> _Kinds:
        lines, layout, width = chunk.lines, self.layout, len(self.names)
        sound = as_array(pc.count_substring(lines, layout.separator)) == width - 1
        quotes = np.zeros(chunk.size, np.int64)
        irregular = np.zeros(chunk.size, bool)
        if layout.quote:
            quotes = as_array(pc.count_substring(lines, layout.quote)).astype(np.int64)
            quoted = np.flatnonzero(quotes)
            regular = np.zeros(len(quoted), bool)
            if self._by_arrow(chunk.data) and layout.quote.isascii() and width <= _REPEATS:
                matches = pc.match_substring_regex(lines.take(pa.array(quoted)), self._regular())
                regular = as_array(matches).astype(bool)
            sound[quoted[regular]] = True
            irregular[quoted[~regular]] = True
        return _Kinds(sound, irregular, quotes)

    def _by_arrow(self, data: bytes) -> bool:
        """Whether Arrow's reader of CSV sees the same lines: it takes CR for the end of one."""
        separator = self.layout.separator
        return (
            len(separator) == 1
            and separator.isascii()
            and len(self.names) > 1
            and b"\r" not in data
        )

    def _regular(self) -> str:
        """Lines that hold a whole record, quotes and all."""
        quote, separator = re.escape(self.layout.quote), re.escape(self.layout.separator)
        one = f"(?:{quote}(?:[^{quote}]|{quote}{quote})*{quote}|[^{quote}{separator}]*)"
        return f"^{one}(?:{separator}{one}){{{len(self.names) - 1}}}$"

    def _fields_of(self, lines: pa.Array, *, by_arrow: bool, quoted: bool) -> dict[str, pa.Array]:
        """The fields of lines that are known to be sound."""
        if not len(lines):
            return self._nothing()
        ends = pa.array([0, len(lines)], pa.int32())
        if by_arrow:
            data = pc.binary_join(pa.ListArray.from_arrays(ends, lines), "\n")[0].as_buffer()
            return self._read_csv(data, quoted=quoted)
        parts = pc.split_pattern(lines, self.layout.separator)
        return {n: pc.list_element(parts, self.names.index(n)) for n in self._chosen}

    def _read_csv(self, data: Any, *, quoted: bool) -> dict[str, pa.Array]:
        """The fields of lines, by Arrow; ArrowInvalid where a line has more or fewer."""
        places = [str(self.names.index(name)) for name in self._chosen] or ["0"]
        table = pyarrow.csv.read_csv(
            pa.BufferReader(data),
            pyarrow.csv.ReadOptions(
                use_threads=False,
                block_size=len(data) + 1,
                column_names=[str(place) for place in range(len(self.names))],
            ),
            pyarrow.csv.ParseOptions(
                delimiter=self.layout.separator,
                quote_char=self.layout.quote if quoted else False,
                ignore_empty_lines=False,
            ),
            pyarrow.csv.ConvertOptions(
                include_columns=places,
                column_types=dict.fromkeys(places, pa.string()),
                check_utf8=False,
            ),
        )
        found = table.combine_chunks().columns
        return {n: one.chunk(0) for n, one in zip(self._chosen, found, strict=False)}

    def _nothing(self) -> dict[str, pa.Array]:
        return {name: pa.array([], pa.string()) for name in self._chosen}

    @property
    def _chosen(self) -> list[str]:
        return chosen(self.names, self.layout)


@dataclass(frozen=True)
class _Kinds:
    """Of each line: as many fields as the header, quotes that need Python's csv, quotes."""

    sound: Mask
    irregular: Mask
    quotes: Ints


class _Irregular:
    """The records of a chunk whose quotes are broken or hold newlines, read one by one."""

    def __init__(self, layout: Layout, names: tuple[str, ...], chunk: Chunk) -> None:
        self._layout = layout
        self._names = names
        self._chunk = chunk
        self._taken: list[int] = []
        self._rows: list[list[str]] = []
        self._lines: list[int] = []
        self._raw: list[str] = []
        self._bad: dict[str, list[tuple[int, str]]] = {"quote": [], "columns": []}

    def read(self, kinds: _Kinds, *, at_end: bool) -> int:
        """Read all irregular records; returns how many lines of the chunk are done."""
        chunk = self._chunk
        odd = np.flatnonzero(kinds.quotes % 2)
        position = 0
        for start in np.flatnonzero(kinds.irregular).tolist():
            if start < position:
                continue  # inside the record before
            lines = [chunk.lines[start].as_py()]
            fields = _fields(lines[0], self._layout)
            if kinds.quotes[start] % 2 and not self._whole(fields):
                later = odd[np.searchsorted(odd, start + 1) :]
                close = int(later[0]) if len(later) else -1
                if close < 0 and not at_end and chunk.size - start < _RECORD_LINES:
                    return start
                if self._can_reach(start, close):
                    several = chunk.lines.slice(start, close - start + 1).to_pylist()
                    joined = _fields("\n".join(several), self._layout)
                    if self._whole(joined):
                        fields, lines = joined, several
            self._take(start, lines, fields)
            position = start + len(lines)
        return chunk.size

    @property
    def taken(self) -> Ints:
        """Positions of the lines that were read."""
        return np.array(self._taken, np.int64)

    def records(self) -> Block:
        """What was read; columns as the file has them."""
        columns = {
            name: pa.array([row[self._names.index(name)] for row in self._rows], pa.string())
            for name in chosen(self._names, self._layout)
        }
        raw = pa.array([text.encode() for text in self._raw], pa.binary())
        lines = np.array(self._lines, np.int64)
        return Block(
            columns, lines, lambda rows: shortened(raw.take(pa.array(rows))), Rejects.none()
        )

    def rejects(self) -> Rejects:
        """What could not be read."""
        parts = []
        for reason, found in self._bad.items():
            lines = np.array([line for line, _ in found], np.int64)
            raw = pa.array([text.encode() for _, text in found], pa.binary())
            parts.append(Rejects.of(reason, lines, raw))
        return Rejects.joined(parts)

    def _whole(self, fields: list[str] | None) -> bool:
        return fields is not None and len(fields) == len(self._names)

    def _can_reach(self, start: int, close: int) -> bool:
        """Whether a record may go on up to a line: it is not far, and nothing bad lies between."""
        between = np.searchsorted(self._chunk.bad, [start, close])
        return 0 < close < start + _RECORD_LINES and between[0] == between[1]

    def _take(self, start: int, lines: list[str], fields: list[str] | None) -> None:
        self._taken += range(start, start + len(lines))
        raw, number = "\n".join(lines), self._chunk.first + start
        if fields is not None and self._whole(fields):
            self._rows.append(fields)
            self._lines.append(number)
            self._raw.append(raw)
        else:
            self._bad["quote" if fields is None else "columns"].append((number, raw))


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
