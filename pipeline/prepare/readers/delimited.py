"""Delimited text: TSV, CSV with quotes (RFC 4180), any separator.

Arrow parses records of one line, a batch at a time; records with broken quotes or with newlines
in quotes are parsed by Python's csv module. A quote that is never closed affects its own line
only: that line is rejected, and parsing goes on with the next one.
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
from embedmill.pipeline.prepare.parse.columns import (
    check_column_names,
    columns_to_read,
    resolve_columns,
)
from embedmill.pipeline.prepare.parse.rejects import Rejects
from embedmill.pipeline.prepare.parse.values import Ints, Mask, to_numpy
from embedmill.pipeline.prepare.readers.csv_fallback import CsvFallback, LineTraits, fields_of
from embedmill.pipeline.prepare.readers.file_slice import FileSlice
from embedmill.pipeline.prepare.readers.layout import Layout
from embedmill.pipeline.prepare.readers.line_batch import LineBatch
from embedmill.pipeline.prepare.readers.parsed_batch import ParsedBatch
from embedmill.pipeline.prepare.readers.text_lines import first_line, line_batches

__all__ = ["check_columns", "read_slice"]

_MAX_REPEATS = 1000  # of a group in a regular expression of RE2


def read_slice(part: FileSlice, layout: Layout) -> Iterator[ParsedBatch]:
    """The records of a slice.

    Raises:
        InputError: the header lacks a column that the config names.
    """
    batches = line_batches(part, layout)
    if layout.header and part.start == 0:
        first = next(batches, None)
        if first is None:
            return
        names = _column_names(first, layout, part)
        batches = chain([first.skip(1)], batches)
    else:
        names = check_columns(part, layout)
    parser = _RecordParser(layout, names, json.loads(part.folders))
    for batch in batches:
        yield parser.parse(batch)
    yield parser.finish()


def check_columns(part: FileSlice, layout: Layout) -> tuple[str, ...]:
    """The column names of a file; none where it is empty.

    Raises:
        InputError: the file is no text in this encoding or lacks a column.
    """
    if layout.header:
        first = first_line(part.url, layout)
        return _column_names(first, layout, part) if first.size else ()
    check_column_names(layout.names, layout, json.loads(part.folders), part.url)
    return layout.names


def _column_names(batch: LineBatch, layout: Layout, part: FileSlice) -> tuple[str, ...]:
    """The column names in the first line of the batch, the header."""
    line = batch.data.partition(b"\n")[0]
    if 0 in batch.bad or b"\0" in line:
        raise InputError(
            f"its first line is no text in {layout.encoding}",
            where=part.url,
            todo="Check events.format and events.encoding",
        )
    names = tuple(fields_of(line.decode(), layout) or ())
    check_column_names(names, layout, json.loads(part.folders), part.url)
    return names


@dataclass
class _RecordParser:
    """Turns batches of lines into records.

    Lines of a quoted record that may go on in the next batch are held back until it comes.
    """

    layout: Layout
    names: tuple[str, ...]
    folders: dict[str, str]
    _unfinished: LineBatch | None = field(default=None, init=False)

    def parse(self, batch: LineBatch) -> ParsedBatch:
        """The records that end in the batch."""
        if self._unfinished is not None:
            batch = self._unfinished.append(batch)
            self._unfinished = None
        return self._parse(batch, at_end=False)

    def finish(self) -> ParsedBatch:
        """The records in the lines that were held back, when the file has ended."""
        batch = self._unfinished or LineBatch(1, b"", 0)
        self._unfinished = None
        return self._parse(batch, at_end=True)

    def _parse(self, batch: LineBatch, *, at_end: bool) -> ParsedBatch:
        fields = self._parse_whole(batch)
        if fields is not None:
            lines = batch.first_line + np.arange(batch.size)
            return self._parsed_batch(fields, lines, batch.raw_lines)
        if self._is_unquoted(batch):
            return self._parse_unquoted(batch)
        return self._parse_quoted(batch, at_end=at_end)

    def _parse_quoted(self, batch: LineBatch, *, at_end: bool) -> ParsedBatch:
        """The records of a batch in which some lines have quotes."""
        traits = self._traits(batch)
        fallback = CsvFallback(self.layout, self.names, batch)
        parsed = fallback.parse(traits, at_end=at_end)
        if parsed < batch.size:
            self._unfinished = batch.skip(parsed)
        regular = ~traits.irregular & (np.arange(batch.size) < parsed)
        regular[fallback.parsed_lines] = False
        regular[batch.bad] = False
        rows = np.flatnonzero(regular & traits.complete)
        incomplete = np.flatnonzero(regular & ~traits.complete)
        rejects = [
            batch.rejects_before(parsed),
            Rejects.for_reason(
                "columns", batch.first_line + incomplete, batch.raw_lines(incomplete)
            ),
            fallback.rejects(),
        ]
        fields = self._fields_of(
            batch.lines.take(pa.array(rows)),
            by_arrow=self._arrow_can_read(batch.data),
            quoted=bool(traits.quotes.any()),
        )
        records = fallback.records()
        columns = {n: pa.concat_arrays([fields[n], records.columns[n]]) for n in fields}

        def raw(positions: Ints) -> pa.Array:
            regular = positions < len(rows)
            parts = [
                batch.raw_lines(rows[positions[regular]]),
                records.raw(positions[~regular] - len(rows)),
            ]
            order = np.concatenate([np.flatnonzero(regular), np.flatnonzero(~regular)])
            return pa.concat_arrays(parts).take(pa.array(np.argsort(order)))

        lines = np.concatenate([batch.first_line + rows, records.lines])
        return self._parsed_batch(columns, lines, raw, Rejects.concat(rejects))

    def _parsed_batch(
        self,
        fields: dict[str, pa.Array],
        lines: Ints,
        raw: Callable[[Ints], pa.Array],
        rejects: Rejects | None = None,
    ) -> ParsedBatch:
        columns = resolve_columns(fields, len(lines), self.layout, self.folders)
        return ParsedBatch(columns, lines, raw, rejects or Rejects.empty())

    def _parse_whole(self, batch: LineBatch) -> dict[str, pa.Array] | None:
        """The fields where every line is a complete record without quotes, else None."""
        if len(batch.bad) or not self._is_unquoted(batch):
            return None
        if b"\n\n" in batch.data or batch.data[:1] == b"\n":
            return None  # Arrow takes a blank line for a record of empty fields
        if not batch.size:
            return self._no_fields()
        try:
            fields = self._read_csv(batch.data, quoted=False)
        except pa.ArrowInvalid:
            return None
        rows = {len(column) for column in fields.values()}
        return fields if rows <= {batch.size} else None  # Arrow skips a blank last line

    def _parse_unquoted(self, batch: LineBatch) -> ParsedBatch:
        """The records of a batch without quotes in which some lines are incomplete or bad."""
        complete = batch.counts(ord(self.layout.separator)) == len(self.names) - 1
        incomplete = ~complete
        complete[batch.bad] = incomplete[batch.bad] = False
        rows, wrong = np.flatnonzero(complete), np.flatnonzero(incomplete)
        lines = batch.select(complete)
        fields = self._read_csv(lines, quoted=False) if len(rows) else self._no_fields()
        rejects = Rejects.for_reason("columns", batch.first_line + wrong, batch.raw_lines(wrong))
        return self._parsed_batch(
            fields,
            batch.first_line + rows,
            lambda positions: batch.raw_lines(rows[positions]),
            Rejects.concat([batch.rejects_before(batch.size), rejects]),
        )

    def _is_unquoted(self, batch: LineBatch) -> bool:
        """Whether Arrow can read the batch and it has neither quotes nor escapes."""
        marks = [mark.encode() for mark in (self.layout.quote, self.layout.escape) if mark]
        return self._arrow_can_read(batch.data) and not any(mark in batch.data for mark in marks)

    def _traits(self, batch: LineBatch) -> LineTraits:
        lines, layout, width = batch.lines, self.layout, len(self.names)
        complete = to_numpy(pc.count_substring(lines, layout.separator)) == width - 1
        quotes = np.zeros(batch.size, np.int64)
        irregular = np.zeros(batch.size, bool)
        if layout.quote:
            quotes = to_numpy(pc.count_substring(lines, layout.quote)).astype(np.int64)
            quoted = np.flatnonzero(quotes)
            regular = np.zeros(len(quoted), bool)
            if (
                self._arrow_can_read(batch.data)
                and layout.quote.isascii()
                and width <= _MAX_REPEATS
            ):
                quoted_lines = lines.take(pa.array(quoted))
                matches = pc.match_substring_regex(quoted_lines, self._record_regex())
                regular = to_numpy(matches).astype(bool)
            complete[quoted[regular]] = True
            irregular[quoted[~regular]] = True
        if layout.escape:
            self._add_escapes(lines, quotes, irregular)
        return LineTraits(complete, irregular, quotes)

    def _add_escapes(self, lines: pa.Array, quotes: Ints, irregular: Mask) -> None:
        """Mark lines with escapes as irregular, and count their quotes without escaped ones."""
        escape = self.layout.escape
        escaped = to_numpy(pc.match_substring(lines, escape)).astype(bool)
        irregular |= escaped
        if self.layout.quote:
            pairs = f"{re.escape(escape)}(?s:.)"
            rest = pc.replace_substring_regex(lines.filter(pa.array(escaped)), pairs, "")
            quotes[escaped] = to_numpy(pc.count_substring(rest, self.layout.quote))

    def _arrow_can_read(self, data: bytes) -> bool:
        """Whether Arrow's CSV reader finds the same lines: it also ends a line at a lone CR."""
        separator = self.layout.separator
        return (
            len(separator) == 1
            and separator.isascii()
            and len(self.names) > 1
            and b"\r" not in data
        )

    def _record_regex(self) -> str:
        """A regular expression of lines that are one record with balanced quotes."""
        quote, separator = re.escape(self.layout.quote), re.escape(self.layout.separator)
        one = f"(?:{quote}(?:[^{quote}]|{quote}{quote})*{quote}|[^{quote}{separator}]*)"
        return f"^{one}(?:{separator}{one}){{{len(self.names) - 1}}}$"

    def _fields_of(self, lines: pa.Array, *, by_arrow: bool, quoted: bool) -> dict[str, pa.Array]:
        """The fields of lines that are known to be complete records."""
        if not len(lines):
            return self._no_fields()
        ends = pa.array([0, len(lines)], pa.int32())
        if by_arrow:
            data = pc.binary_join(pa.ListArray.from_arrays(ends, lines), "\n")[0].as_buffer()
            return self._read_csv(data, quoted=quoted)
        parts = pc.split_pattern(lines, self.layout.separator)
        return {n: pc.list_element(parts, self.names.index(n)) for n in self._wanted}

    def _read_csv(self, data: Any, *, quoted: bool) -> dict[str, pa.Array]:
        """The fields of lines, by Arrow; raises ArrowInvalid where a line has more or fewer."""
        indices = [str(self.names.index(name)) for name in self._wanted] or ["0"]
        table = pyarrow.csv.read_csv(
            pa.BufferReader(data),
            pyarrow.csv.ReadOptions(
                use_threads=False,
                block_size=len(data) + 1,
                column_names=[str(index) for index in range(len(self.names))],
            ),
            pyarrow.csv.ParseOptions(
                delimiter=self.layout.separator,
                quote_char=self.layout.quote if quoted else False,
                ignore_empty_lines=False,
            ),
            pyarrow.csv.ConvertOptions(
                include_columns=indices,
                column_types=dict.fromkeys(indices, pa.string()),
                check_utf8=False,
            ),
        )
        columns = table.combine_chunks().columns
        return {n: one.chunk(0) for n, one in zip(self._wanted, columns, strict=False)}

    def _no_fields(self) -> dict[str, pa.Array]:
        return {name: pa.array([], pa.string()) for name in self._wanted}

    @property
    def _wanted(self) -> list[str]:
        return columns_to_read(self.names, self.layout)
