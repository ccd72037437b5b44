"""Records of delimited text that Arrow cannot parse, by Python's csv module.

These are records whose quotes are broken or whose quoted fields hold newlines.
"""

from __future__ import annotations

import csv
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

_MAX_RECORD_LINES = 1000  # a record may span


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
        batch = self._batch
        odd_quotes = np.flatnonzero(traits.quotes % 2)
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
                if close < 0 and not at_end and batch.size - start < _MAX_RECORD_LINES:
                    return start
                if self._may_span(start, close):
                    several = batch.lines.slice(start, close - start + 1).to_pylist()
                    joined = fields_of("\n".join(several), self._layout)
                    if self._is_complete(joined):
                        fields, lines = joined, several
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

    def _may_span(self, start: int, close: int) -> bool:
        """Whether a record may span these lines: not too many, and no rejected one among them."""
        between = np.searchsorted(self._batch.bad, [start, close])
        return 0 < close < start + _MAX_RECORD_LINES and between[0] == between[1]

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
    if not layout.quote or layout.quote not in text:
        return text.split(layout.separator)
    reader = csv.reader(
        [text], delimiter=layout.separator, quotechar=layout.quote, doublequote=True, strict=True
    )
    try:
        return next(reader)
    except csv.Error:
        return None
