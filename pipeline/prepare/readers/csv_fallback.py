"""Records of delimited text that Arrow cannot parse, by Python's csv module.

These are records whose quotes are broken, whose quoted fields hold newlines, or that have escapes.
"""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from embedmill.pipeline.prepare.parse.columns import columns_to_read
from embedmill.pipeline.prepare.parse.rejects import Rejects, truncated
from embedmill.pipeline.prepare.parse.values import Ints, Mask
from embedmill.pipeline.prepare.readers.layout import Layout
from embedmill.pipeline.prepare.readers.line_batch import LineBatch
from embedmill.pipeline.prepare.readers.parsed_batch import ParsedBatch

__all__ = ["CsvFallback", "LineTraits", "fields_of"]

# A record of more lines than this, all of which could be records themselves, is taken for these:
# its quote was never closed.
_SURE_LINES = 1000
csv.field_size_limit(2**31 - 1)  # of the process; what bounds a field here is max_line_bytes


@dataclass(frozen=True)
class LineTraits:
    """What is known of each line before it is parsed, [lines].

    Attributes:
        complete: the line is a record with as many fields as there are columns.
        irregular: its quotes are such that only Python's csv module can parse it.
        quotes: number of quote characters.
    """

    complete: Mask
    irregular: Mask
    quotes: Ints


class CsvFallback:
    """Parses the irregular records of a batch of lines one by one."""

    def __init__(self, layout: Layout, names: tuple[str, ...], batch: LineBatch) -> None:
        self._layout = layout
        self._names = names
        self._batch = batch
        self._parsed_lines: list[int] = []
        self._rows: list[list[str]] = []
        self._lines: list[int] = []
        self._raw: list[str] = []
        self._bad: dict[str, list[tuple[int, str]]] = {"quote": [], "columns": []}

    def parse(self, traits: LineTraits, *, at_end: bool) -> int:
        """Parse all irregular records.

        Args:
            traits: of the lines of the batch.
            at_end: whether the file ends with the batch.

        Returns:
            The number of lines that are parsed; the record that begins after them may go on in
            the next batch.
        """
        batch, most = self._batch, self._layout.max_line_bytes
        odd_quotes, starts = np.flatnonzero(traits.quotes % 2), batch.bounds[0]
        position = 0
        for start in np.flatnonzero(traits.irregular).tolist():
            if start < position:
                continue  # a later line of the record before
            lines = [batch.lines[start].as_py()]
            fields = fields_of(lines[0], self._layout)
            if traits.quotes[start] % 2 and not self._is_complete(fields):
                # The record goes on up to the next line with an odd number of quotes.
                later = odd_quotes[np.searchsorted(odd_quotes, start + 1) :]
                close = int(later[0]) if len(later) else -1
                if close < 0 and not at_end and len(batch.data) - starts[start] <= most:
                    return start
                if self._may_span(start, close, traits.complete):
                    several = batch.lines.slice(start, close - start + 1).to_pylist()
                    joined = fields_of("\n".join(several), self._layout)
                    if self._is_complete(joined):
                        fields, lines = joined, several
            elif self._ends_in_escape(lines[0]):
                if start + 1 == batch.size and not at_end:
                    return start
                fields, lines = self._with_next_line(start, lines, fields)
            self._add(start, lines, fields)
            position = start + len(lines)
        return batch.size

    @property
    def parsed_lines(self) -> Ints:
        """Positions of the lines of all parsed and rejected records."""
        return np.array(self._parsed_lines, np.int64)

    def records(self) -> ParsedBatch:
        """The parsed records, with the columns of the file."""
        columns = {
            name: pa.array([row[self._names.index(name)] for row in self._rows], pa.string())
            for name in columns_to_read(self._names, self._layout)
        }
        raw = pa.array([text.encode() for text in self._raw], pa.binary())
        lines = np.array(self._lines, np.int64)
        return ParsedBatch(
            columns, lines, lambda rows: truncated(raw.take(pa.array(rows))), Rejects.empty()
        )

    def rejects(self) -> Rejects:
        """The records that could not be parsed."""
        parts = []
        for reason, records in self._bad.items():
            lines = np.array([line for line, _ in records], np.int64)
            raw = pa.array([text.encode() for _, text in records], pa.binary())
            parts.append(Rejects.for_reason(reason, lines, raw))
        return Rejects.concat(parts)

    def _is_complete(self, fields: list[str] | None) -> bool:
        return fields is not None and len(fields) == len(self._names)

    def _may_span(self, start: int, close: int, complete: Mask) -> bool:
        """Whether a record may span these lines: not too long, and no rejected one among them."""
        if close < 0:
            return False
        starts, ends = self._batch.bounds
        between = np.searchsorted(self._batch.bad, [start, close])
        if between[0] != between[1] or ends[close] - starts[start] > self._layout.max_line_bytes:
            return False
        return close - start < _SURE_LINES or not complete[start + 1 : close].all()

    def _ends_in_escape(self, line: str) -> bool:
        """Whether the newline after a line is escaped."""
        escape = self._layout.escape
        return bool(escape) and (len(line) - len(line.rstrip(escape))) % 2 == 1

    def _with_next_line(
        self, start: int, lines: list[str], fields: list[str] | None
    ) -> tuple[list[str] | None, list[str]]:
        """The record of a line whose newline is escaped, if it is one with the lines after it."""
        several, position = list(lines), start
        while self._ends_in_escape(several[-1]) and position + 1 < self._batch.size:
            position += 1
            several.append(self._batch.lines[position].as_py())
        joined = fields_of("\n".join(several), self._layout)
        alone = self._is_complete(fields) and self._is_complete(
            fields_of(several[-1], self._layout)
        )
        return (joined, several) if self._is_complete(joined) and not alone else (fields, lines)

    def _add(self, start: int, lines: list[str], fields: list[str] | None) -> None:
        """Add a record, or reject it where its fields are not as many as the columns."""
        self._parsed_lines += range(start, start + len(lines))
        raw, number = "\n".join(lines), self._batch.first_line + start
        if fields is not None and self._is_complete(fields):
            self._rows.append(fields)
            self._lines.append(number)
            self._raw.append(raw)
        else:
            self._bad["quote" if fields is None else "columns"].append((number, raw))


def fields_of(text: str, layout: Layout) -> list[str] | None:
    """The fields of one record, or None where its quotes are broken."""
    quote, escape = layout.quote, layout.escape
    if not (quote and quote in text) and not (escape and escape in text):
        return text.split(layout.separator)
    reader = csv.reader(
        [_literal_escapes(text, layout) if escape else text],
        delimiter=layout.separator,
        quotechar=quote or None,
        quoting=csv.QUOTE_MINIMAL if quote else csv.QUOTE_NONE,
        escapechar=escape or None,
        doublequote=True,
        strict=True,
    )
    try:
        return next(reader)
    except csv.Error:
        return None


def _literal_escapes(text: str, layout: Layout) -> str:
    """The text with escape characters doubled that escape nothing, as in C:\\new.

    Python's csv module would drop them.
    """
    escape = layout.escape
    special = {layout.quote, layout.separator, escape, "\n"} - {""}

    def literal(found: re.Match[str]) -> str:
        return found[0] if found[1] in special else escape + found[0]

    return re.sub(rf"{re.escape(escape)}(.|\Z)", literal, text, flags=re.DOTALL)
