"""Records of delimited text whose quotes are broken or hold newlines, by Python's csv."""

from __future__ import annotations

import csv
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from embedmill.pipeline.prepare.parse.columns import chosen
from embedmill.pipeline.prepare.parse.values import Mask
from embedmill.pipeline.prepare.readers.line_batch import Chunk
from embedmill.pipeline.prepare.readers.parsed_batch import Block, Ints, Layout, Rejects, shortened

__all__ = ["Irregular", "Kinds", "fields_of"]

_RECORD_LINES = 1000  # a quoted record spans at most so many lines


@dataclass(frozen=True)
class Kinds:
    """Of each line: as many fields as the header, quotes that need Python's csv, quotes."""

    sound: Mask
    irregular: Mask
    quotes: Ints


class Irregular:
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

    def read(self, kinds: Kinds, *, at_end: bool) -> int:
        """Read all irregular records; returns how many lines of the chunk are done."""
        chunk = self._chunk
        odd = np.flatnonzero(kinds.quotes % 2)
        position = 0
        for start in np.flatnonzero(kinds.irregular).tolist():
            if start < position:
                continue  # inside the record before
            lines = [chunk.lines[start].as_py()]
            fields = fields_of(lines[0], self._layout)
            if kinds.quotes[start] % 2 and not self._whole(fields):
                later = odd[np.searchsorted(odd, start + 1) :]
                close = int(later[0]) if len(later) else -1
                if close < 0 and not at_end and chunk.size - start < _RECORD_LINES:
                    return start
                if self._can_reach(start, close):
                    several = chunk.lines.slice(start, close - start + 1).to_pylist()
                    joined = fields_of("\n".join(several), self._layout)
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


def fields_of(text: str, layout: Layout) -> list[str] | None:
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
