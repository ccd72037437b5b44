"""Delimited text: TSV, CSV with quotes (RFC 4180), any separator.

Records of one line are split by Arrow, a chunk at a time; those with broken quotes or with
newlines in quotes go through Python's csv. A quote that is never closed spoils its own line
only: it is rejected and reading goes on at the next.
"""

from __future__ import annotations

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

from embedmill.pipeline.errors import InputError
from embedmill.pipeline.prepare.parse.columns import check_names, chosen, resolved
from embedmill.pipeline.prepare.parse.values import as_array
from embedmill.pipeline.prepare.readers.line_batch import Chunk
from embedmill.pipeline.prepare.readers.parsed_batch import Block, Ints, Layout, Rejects, Split
from embedmill.pipeline.prepare.readers.quoted import Irregular, Kinds, fields_of
from embedmill.pipeline.prepare.readers.text import chunks, first_line

__all__ = ["blocks", "check"]

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
    names = tuple(fields_of(line.decode(), layout) or ())
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
        if self._is_plain(chunk):
            return self._sound_of(chunk)
        kinds = self._kinds(chunk)
        odd = Irregular(self.layout, self.names, chunk)
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
        if len(chunk.bad) or not self._is_plain(chunk):
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

    def _sound_of(self, chunk: Chunk) -> Block:
        """The records of a chunk without quotes, of which some are broken."""
        sound = chunk.counts(ord(self.layout.separator)) == len(self.names) - 1
        wrong = ~sound
        sound[chunk.bad] = wrong[chunk.bad] = False
        rows, others = np.flatnonzero(sound), np.flatnonzero(wrong)
        fields = self._read_csv(chunk.only(sound), quoted=False) if len(rows) else self._nothing()
        broken = Rejects.of("columns", chunk.first + others, chunk.lines_at(others))
        return self._block(
            fields,
            chunk.first + rows,
            lambda chosen: chunk.lines_at(rows[chosen]),
            Rejects.joined([chunk.rejects_before(chunk.size), broken]),
        )

    def _is_plain(self, chunk: Chunk) -> bool:
        """Whether the chunk is for Arrow to read and has no quotes."""
        quote = self.layout.quote.encode()
        return self._by_arrow(chunk.data) and not (quote and quote in chunk.data)

    def _kinds(self, chunk: Chunk) -> Kinds:
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
        return Kinds(sound, irregular, quotes)

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
