"""JSON Lines: an object on each line, or several without a newline between them; JSON documents.

Lists and objects count as missing where a value is wanted.

Arrow parses a batch of lines at once where all values of a field have one type. Other lines, and
those that are no object, are parsed one by one in Python. Both give the same for the same value:
text, and for numbers their digits, or a float where they are not whole.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json

from embedmill.pipeline.prepare.parse.columns import resolve_columns
from embedmill.pipeline.prepare.parse.ids import EXACT_FLOATS, separate_fractions
from embedmill.pipeline.prepare.parse.mixed import Column, concat
from embedmill.pipeline.prepare.parse.records import ExplodedRecords, event_values, explode_records
from embedmill.pipeline.prepare.parse.rejects import Rejects
from embedmill.pipeline.prepare.parse.values import Ints, to_numpy
from embedmill.pipeline.prepare.readers.file_slice import FileSlice
from embedmill.pipeline.prepare.readers.joined_records import separate_lines
from embedmill.pipeline.prepare.readers.json_values import (
    OBJECT_REGEX,
    guess_schema,
    parse_object,
    scalars,
    text_list,
)
from embedmill.pipeline.prepare.readers.layout import Layout
from embedmill.pipeline.prepare.readers.line_batch import LineBatch
from embedmill.pipeline.prepare.readers.parsed_batch import ParsedBatch
from embedmill.pipeline.prepare.readers.text_lines import line_batches

__all__ = ["check_columns", "read_slice"]


def read_slice(part: FileSlice, layout: Layout) -> Iterator[ParsedBatch]:
    """The events of a slice; values as strings."""
    parser = _BatchParser(layout, json.loads(part.folders))
    for batch in line_batches(part, layout):
        yield parser.parse(batch)


def check_columns(part: FileSlice, layout: Layout) -> tuple[str, ...]:
    """No columns: each line has its own."""
    return ()


@dataclass(frozen=True)
class _Events:
    """Events parsed from some lines of a batch.

    Attributes:
        fields: values by path, [N] each.
        lines: the line of each event, as a position in the batch, [N].
        no_list: lines whose record has no list at `explode`.
        no_object: lines that are no JSON object.
    """

    fields: dict[str, Column]
    lines: Ints
    no_list: Ints
    no_object: Ints

    def concat(self, other: _Events) -> _Events:
        """The events of both, those of `self` first; fields are those of `other`."""
        return _Events(
            {n: concat([self.fields[n], column]) for n, column in other.fields.items()},
            np.concatenate([self.lines, other.lines]),
            np.concatenate([self.no_list, other.no_list]),
            np.concatenate([self.no_object, other.no_object]),
        )


@dataclass
class _BatchParser:
    """Parses batches of lines; remembers the types of the fields from batch to batch."""

    layout: Layout
    folders: dict[str, str]
    _schema: pa.Schema | None = field(default=None, init=False)

    def parse(self, batch: LineBatch) -> ParsedBatch:
        """The events of a batch."""
        if self.layout.lists or not self.layout.wanted:
            batch = separate_lines(batch)
            return self._parsed_batch(batch, self._parse_one_by_one(batch, _usable(batch)))
        events = self._parse_with_arrow(batch, _usable(batch))
        if events is None:
            lines, batch = batch.size, separate_lines(batch)
            if batch.size > lines:
                events = self._parse_with_arrow(batch, _usable(batch))
        if events is None:
            events = self._parse_mixed(batch, _usable(batch))
        return self._parsed_batch(batch, events)

    def _parse_mixed(self, batch: LineBatch, lines: Ints) -> _Events:
        """Lines that are valid JSON by a regular expression with Arrow, the others one by one."""
        texts = batch.lines.take(pa.array(lines))
        valid = to_numpy(pc.match_substring_regex(texts, OBJECT_REGEX)).astype(bool)
        by_arrow = self._parse_with_arrow(batch, lines[valid]) if valid.any() else None
        if by_arrow is None:
            return self._parse_one_by_one(batch, lines)
        return by_arrow.concat(self._parse_one_by_one(batch, lines[~valid]))

    def _parsed_batch(self, batch: LineBatch, events: _Events) -> ParsedBatch:
        columns = resolve_columns(events.fields, len(events.lines), self.layout, self.folders)
        rejects = [
            Rejects.for_reason(reason, batch.numbers(lines), batch.raw_lines(lines))
            for reason, lines in (("json", events.no_object), ("explode", events.no_list))
        ]
        rejected = len(batch.bad) + len(events.no_object) + len(events.no_list)
        return ParsedBatch(
            columns,
            batch.numbers(events.lines),
            lambda positions: batch.raw_lines(events.lines[positions]),
            Rejects.concat([batch.rejects_before(batch.size), *rejects]),
            empty_lists=batch.size - rejected - len(np.unique(events.lines)),
        )

    def _paths(self) -> list[str]:
        """All names of the wanted columns."""
        names = [n for column in self.layout.wanted for n in self.layout.names_of(column)]
        return list(dict.fromkeys(names))

    def _parse_with_arrow(self, batch: LineBatch, lines: Ints) -> _Events | None:
        """The events of these lines; None where Arrow cannot parse them or could differ."""
        if not len(lines):
            return None
        texts = batch.lines if len(lines) == batch.size else batch.lines.take(pa.array(lines))
        if any(key in batch.data for key in _dotted_keys(self._paths())):
            return None
        # A line that begins and ends with braces has at least one object. If Arrow finds as many
        # objects as there are lines, each line has exactly one.
        braced = pc.and_(pc.starts_with(texts, "{"), pc.ends_with(texts, "}"))
        if not pc.all(braced).as_py():
            return None
        schema, table = self._schema, None
        if schema is not None:
            table = _read_json(texts, schema)
        for floats in (False, True):
            if table is None:
                schema = guess_schema(texts, self._paths(), self.layout.explode, floats=floats)
                table = _read_json(texts, schema)
        if table is None or table.num_rows != len(lines):
            return None
        self._schema = schema
        exploded = explode_records(_as_structs(table), self._paths(), self.layout.explode)
        fields = _scalar_fields(exploded, self._paths())
        if fields is None:
            return None
        no_list = np.flatnonzero(exploded.lacking)
        return _Events(fields, lines[exploded.records], lines[no_list], lines[:0])

    def _parse_one_by_one(self, batch: LineBatch, lines: Ints) -> _Events:
        objects = [(line, parse_object(batch.lines[line].as_py())) for line in lines.tolist()]
        records = [(line, record) for line, record in objects if record is not None]
        no_object = [line for line, record in objects if record is None]
        paths = self._paths() or list(dict.fromkeys(n for _, record in records for n in record))
        rows: list[list[Any]] = []
        line_of_row: list[int] = []
        no_list: list[int] = []
        for line, record in records:
            events = event_values(record, paths, self.layout.explode)
            if events is None:
                no_list.append(line)
                continue
            for event in events:
                rows.append(event)
                line_of_row.append(line)
        fields = {
            path: self._column(path, [row[number] for row in rows])
            for number, path in enumerate(paths)
        }
        return _Events(fields, _ints(line_of_row), _ints(no_list), _ints(no_object))

    def _column(self, path: str, values: list[Any]) -> Column:
        """The values at a path: single ones, or lists of text where these are wanted."""
        separator = self.layout.lists.get(path)
        if separator is None:
            return scalars(values)
        return pa.array([text_list(one, separator) for one in values], pa.list_(pa.string()))


def _usable(batch: LineBatch) -> Ints:
    """Positions of the lines that are not rejected."""
    usable = np.ones(batch.size, bool)
    usable[batch.bad] = False
    return np.flatnonzero(usable)


def _ints(values: list[int]) -> Ints:
    return np.array(values, np.int64)


def _read_json(lines: pa.Array, schema: pa.Schema) -> pa.Table | None:
    """The fields of the schema in all lines, by Arrow; None where it raises an error."""
    ends = pa.array([0, len(lines)], pa.int32())
    data = pc.binary_join(pa.ListArray.from_arrays(ends, lines), "\n")[0].as_buffer()
    try:
        return pyarrow.json.read_json(
            pa.BufferReader(data),
            pyarrow.json.ReadOptions(use_threads=False, block_size=len(data) + 1),
            pyarrow.json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore"),
        )
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return None


def _as_structs(table: pa.Table) -> pa.StructArray:
    return table.combine_chunks().to_struct_array().combine_chunks()


def _scalar_fields(exploded: ExplodedRecords, paths: list[str]) -> dict[str, Column] | None:
    """The same columns as parsing line by line gives; None where they could differ."""
    fields: dict[str, Column] = {}
    for path in paths:
        column = exploded.fields.get(path)
        if column is None or pa.types.is_nested(column.type):
            fields[path] = pa.nulls(len(exploded.records), pa.string())
        elif pa.types.is_floating(column.type):
            numbers = np.abs(to_numpy(column.fill_null(0.0)))
            if (np.isfinite(numbers) & (numbers >= EXACT_FLOATS)).any():
                return None  # their digits are in the line only
            fields[path] = separate_fractions(column)
        else:
            fields[path] = column.cast(pa.string())
    return fields


def _dotted_keys(paths: list[str]) -> list[bytes]:
    """Keys with dots in them that equal a part of a path, as they would be written in a line.

    Arrow would look for such a field below an object; a key that equals the path comes first.
    """
    keys = {b"\\u002e", b"\\u002E"}
    for path in paths:
        parts = path.split(".")
        for start in range(len(parts)):
            for end in range(start + 2, len(parts) + 1):
                keys.add(f'"{".".join(parts[start:end])}"'.encode())
    return sorted(keys) if any("." in path for path in paths) else []
