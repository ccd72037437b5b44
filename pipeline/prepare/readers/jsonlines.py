"""JSON lines: one object per line. Numbers and strings are taken; others count as missing.

Lines are parsed by Arrow, a chunk at a time, where all values of a field have one type; the
others, and lines that are no object, one by one. Both give the same text for the same value.
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

from embedmill.pipeline.prepare.parse.columns import resolved
from embedmill.pipeline.prepare.parse.records import Exploded, events_of, exploded
from embedmill.pipeline.prepare.parse.values import as_array
from embedmill.pipeline.prepare.readers.line_batch import Chunk
from embedmill.pipeline.prepare.readers.parsed_batch import Block, Ints, Layout, Rejects, Split
from embedmill.pipeline.prepare.readers.text import chunks

__all__ = ["blocks", "check"]

_EXACT = 2.0**53
_SAMPLE = 50  # lines whose values tell the types
_BLANK = r"[ \t]*"
_SCALAR = (
    r'(?:"(?:[^"\\\x00-\x1f]|\\["\\/bfnrt]|\\u[0-9a-fA-F]{4})*"'
    r"|-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?|true|false|null)"
)


def blocks(split: Split, layout: Layout) -> Iterator[Block]:
    """The records of a split; values as strings."""
    parser = _Parser(layout, json.loads(split.folders))
    for chunk in chunks(split, layout):
        yield parser.block(chunk)


def check(split: Split, layout: Layout) -> tuple[str, ...]:
    """No columns: each line has its own."""
    return ()


@dataclass
class _Parser:
    """Turns chunks into blocks; keeps in mind which types the fields had."""

    layout: Layout
    folders: dict[str, str]
    _schema: pa.Schema | None = field(default=None, init=False)

    def block(self, chunk: Chunk) -> Block:
        """The events of a chunk."""
        usable = np.ones(chunk.size, bool)
        usable[chunk.bad] = False
        rows = np.flatnonzero(usable)
        if self.layout.wanted:
            found = self._at_once(chunk, rows)
            if found is not None:
                return self._block(chunk, found[0], rows[found[1]], rows[found[2]], Rejects.none())
        return self._mixed(chunk, rows)

    def _mixed(self, chunk: Chunk, rows: Ints) -> Block:
        """Lines that look sound by Arrow, the others one by one."""
        plain = np.zeros(len(rows), bool)
        if self.layout.wanted:
            lines = chunk.lines.take(pa.array(rows))
            plain = as_array(pc.match_substring_regex(lines, _OBJECT)).astype(bool)
        found = self._at_once(chunk, rows[plain]) if plain.any() else None
        if found is None:
            plain[:] = False
        fields, lines_of, lacking, wrong = self._one_by_one(chunk, rows[~plain])
        if found is not None:
            ours, theirs = found[0], fields
            fields = {name: pa.concat_arrays([ours[name], theirs[name]]) for name in theirs}
            lines_of = np.concatenate([rows[plain][found[1]], lines_of])
            lacking = np.concatenate([rows[plain][found[2]], lacking])
        rejects = Rejects.of("json", chunk.first + wrong, chunk.lines_at(wrong))
        return self._block(chunk, fields, lines_of, lacking, rejects)

    def _block(
        self,
        chunk: Chunk,
        fields: dict[str, pa.Array],
        positions: Ints,
        lacking: Ints,
        rejects: Rejects,
    ) -> Block:
        columns = resolved(fields, len(positions), self.layout, self.folders)
        without = Rejects.of("explode", chunk.first + lacking, chunk.lines_at(lacking))
        told = len(chunk.bad) + len(rejects.lines) + len(lacking) + len(np.unique(positions))
        return Block(
            columns,
            chunk.first + positions,
            lambda chosen: chunk.lines_at(positions[chosen]),
            Rejects.joined([chunk.rejects_before(chunk.size), rejects, without]),
            chunk.size - told,
        )

    def _paths(self) -> list[str]:
        names = [n for column in self.layout.wanted for n in self.layout.known_as(column)]
        return list(dict.fromkeys(names))

    def _flags(self) -> set[str]:
        """Paths at which true and false are values."""
        return {n for column in self.layout.flags for n in self.layout.known_as(column)}

    def _at_once(self, chunk: Chunk, rows: Ints) -> tuple[dict[str, pa.Array], Ints, Ints] | None:
        """Fields, the line of each event, lines without a list; None where it cannot be done."""
        if not len(rows):
            return None
        lines = chunk.lines if len(rows) == chunk.size else chunk.lines.take(pa.array(rows))
        # Each line that begins and ends so holds one object or more; if there are as many
        # objects as lines, each holds one.
        if any(key in chunk.data for key in _dotted(self._paths())):
            return None
        framed = pc.and_(pc.starts_with(lines, "{"), pc.ends_with(lines, "}"))
        if not pc.all(framed).as_py():
            return None
        schema, table = self._schema, None
        if schema is not None:
            table = _parsed(lines, schema)
        if table is None:
            schema = self._guess(lines)
            table = _parsed(lines, schema)
        if table is None or table.num_rows != len(rows):
            return None
        self._schema = schema
        found = exploded(_struct(table), self._paths(), self.layout.explode)
        return _exact(found, self._paths(), self._flags())

    def _guess(self, lines: pa.Array) -> pa.Schema:
        """The types of the wanted fields, by the first lines."""
        records = [_object(line) for line in lines.slice(0, _SAMPLE).to_pylist()]
        paths, explode = self._paths(), self.layout.explode
        kinds: dict[str, type] = {}
        for record in records:
            for values in (record and events_of(record, paths, explode)) or ():
                for path, value in zip(paths, values, strict=True):
                    if value is not None and kinds.get(path) is not float:
                        kinds[path] = type(value)
        tree: dict[str, Any] = {}
        for path in paths:
            _plant(tree, path, kinds.get(path, str), explode)
        return pa.schema([(name, _arrow_type(kind)) for name, kind in tree.items()])

    def _one_by_one(self, chunk: Chunk, rows: Ints) -> tuple[dict[str, pa.Array], Ints, Ints, Ints]:
        """Fields as text, the line of each event, lines without a list, lines of no object."""
        objects = [(row, _object(chunk.lines[row].as_py())) for row in rows.tolist()]
        records = [(row, record) for row, record in objects if record is not None]
        wrong = [row for row, record in objects if record is None]
        paths = self._paths() or list(dict.fromkeys(n for _, record in records for n in record))
        flags = self._flags()
        takes = [_text_or_flag if path in flags else _text for path in paths]
        values: list[list[Any]] = []
        positions: list[int] = []
        lacking: list[int] = []
        for row, record in records:
            events = events_of(record, paths, self.layout.explode)
            if events is None:
                lacking.append(row)
                continue
            for event in events:
                values.append([take(value) for take, value in zip(takes, event, strict=True)])
                positions.append(row)
        fields = {
            path: pa.array([one[place] for one in values], pa.string())
            for place, path in enumerate(paths)
        }
        return fields, _ints(positions), _ints(lacking), _ints(wrong)


def _ints(values: list[int]) -> Ints:
    return np.array(values, np.int64)


def _object(line: str) -> dict[str, Any] | None:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _text(value: Any) -> str | None:
    """A string or number as text; None (missing) for anything else, lone surrogates too."""
    if isinstance(value, str):
        return value if value.isascii() or _encodable(value) else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if isinstance(value, float):  # as Arrow writes it
        return str(pa.scalar(value).cast(pa.string()).as_py())
    return repr(value)


def _text_or_flag(value: Any) -> str | None:
    """As `_text`, and true and false as they stand."""
    return json.dumps(value) if isinstance(value, bool) else _text(value)


def _encodable(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _parsed(lines: pa.Array, schema: pa.Schema) -> pa.Table | None:
    """The lines by Arrow, fields of the schema alone; None where it finds a fault."""
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


def _struct(table: pa.Table) -> pa.StructArray:
    return table.combine_chunks().to_struct_array().combine_chunks()


def _exact(
    found: Exploded, paths: list[str], flags: set[str]
) -> tuple[dict[str, pa.Array], Ints, Ints] | None:
    """Fields as text, as `_one_by_one` has them; None where they might differ."""
    fields = {}
    for path in paths:
        column = found.fields.get(path)
        if column is not None and pa.types.is_floating(column.type):
            numbers = np.abs(as_array(column.fill_null(0.0)))
            if not (numbers < _EXACT).all():
                return None
        elif (
            column is None
            or pa.types.is_nested(column.type)
            or (pa.types.is_boolean(column.type) and path not in flags)
        ):
            column = pa.nulls(len(found.records), pa.string())
        fields[path] = column.cast(pa.string())
    return fields, found.records, np.flatnonzero(found.lacking)


def _plant(tree: dict[str, Any], path: str, kind: type, explode: str) -> None:
    """Put the type at a path into a tree of types; `explode` names a list of such a tree."""
    parts, done = path.split("."), ""
    for place, part in enumerate(parts):
        done = f"{done}.{part}" if done else part
        listed, ends = done == explode, place + 1 == len(parts)
        if ends:
            tree.setdefault(part, [kind] if listed else kind)
            return
        below = tree.setdefault(part, [{}] if listed else {})
        below = below[0] if isinstance(below, list) else below
        if not isinstance(below, dict):
            return  # both a value and a record: left to who reads one by one
        tree = below


def _dotted(paths: list[str]) -> list[bytes]:
    """Keys that are paths themselves, as they would stand in a line."""
    keys = {b"\\u002e", b"\\u002E"}
    for path in paths:
        parts = path.split(".")
        for start in range(len(parts)):
            for end in range(start + 2, len(parts) + 1):
                keys.add(f'"{".".join(parts[start:end])}"'.encode())
    return sorted(keys) if any("." in path for path in paths) else []


def _arrow_type(kind: Any) -> pa.DataType:
    if isinstance(kind, dict):
        return pa.struct([(name, _arrow_type(inner)) for name, inner in kind.items()])
    if isinstance(kind, list):
        return pa.list_(_arrow_type(kind[0]))
    return {int: pa.int64(), float: pa.float64(), bool: pa.bool_()}.get(kind, pa.string())


def _nested(depth: int) -> str:
    """Values of JSON whose lists and objects are nested so deep at most."""
    if not depth:
        return _SCALAR
    inner = _nested(depth - 1)
    listed = rf"\[{_BLANK}(?:{inner}{_BLANK}(?:,{_BLANK}{inner}{_BLANK})*)?\]"
    return f"(?:{_SCALAR}|{listed}|{_braced(inner)})"


def _braced(value: str) -> str:
    pair = rf'"(?:[^"\\\x00-\x1f]|\\["\\/bfnrt])*"{_BLANK}:{_BLANK}{value}{_BLANK}'
    return rf"\{{{_BLANK}(?:{pair}(?:,{_BLANK}{pair})*)?\}}"


_OBJECT = f"^{_braced(_nested(2))}$"
