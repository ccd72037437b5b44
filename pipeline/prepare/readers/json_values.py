"""JSON values: one line parsed in Python, values as text, the Arrow types of fields."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from embedmill.pipeline.prepare.parse.ids import number_text
from embedmill.pipeline.prepare.parse.mixed import Column, MixedColumn
from embedmill.pipeline.prepare.parse.records import event_values

__all__ = ["OBJECT_REGEX", "guess_schema", "parse_object", "scalars", "text_list"]

_SAMPLE_LINES = 50  # whose values decide the types
_BLANK = r"[ \t]*"
_SCALAR = (
    r'(?:"(?:[^"\\\x00-\x1f]|\\["\\/bfnrt]|\\u[0-9a-fA-F]{4})*"'
    r"|-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?|true|false|null)"
)


class _Number(str):
    """A number of JSON, as it is written."""


_DECODER = json.JSONDecoder(parse_int=_Number, parse_float=_Number, parse_constant=_Number)


def parse_object(line: str) -> dict[str, Any] | None:
    """The JSON object in a line; None where it holds none. Numbers are kept as they are written."""
    try:
        value = _DECODER.decode(line)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def scalar_of(value: Any) -> str | float | None:
    """A value as text, a number that is not whole as a float.

    None (missing) for null, lists, objects and text with lone surrogates.
    """
    if isinstance(value, _Number):
        return number_text(value)
    if isinstance(value, str):
        return value if value.isascii() or _encodable(value) else None
    return json.dumps(value) if isinstance(value, bool) else None


def scalars(values: Sequence[Any]) -> Column:
    """Values of JSON as a column, [N]: text, and numbers that are not whole if there are any."""
    found = [scalar_of(value) for value in values]
    text = pa.array([one if isinstance(one, str) else None for one in found], pa.string())
    if not any(isinstance(one, float) for one in found):
        return text
    rest = pa.array([one if isinstance(one, float) else None for one in found], pa.float64())
    return MixedColumn((text, rest))


def text_list(value: Any, separator: str) -> list[str] | None:
    """The elements of a list, also of lists in it, or the parts of a text, as text."""
    if isinstance(value, list):
        lists = [text_list(one, "") or [] for one in value]
        return [text for texts in lists for text in texts]
    found = scalar_of(value)
    if found is None:
        return None
    return str(found).split(separator) if separator else [str(found)]


def _encodable(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def guess_schema(
    lines: pa.Array, paths: list[str], explode: str, *, floats: bool = False
) -> pa.Schema:
    """Arrow types of fields, by their values in the first lines.

    Args:
        lines: JSON objects, as strings.
        paths: of the fields.
        explode: path of the list of events; empty where a record is an event.
        floats: whether whole numbers are floats too, as others may stand in later lines.
    """
    records = [parse_object(line) for line in lines.slice(0, _SAMPLE_LINES).to_pylist()]
    types: dict[str, type] = {}
    for record in records:
        for values in (record and event_values(record, paths, explode)) or ():
            for path, value in zip(paths, values, strict=True):
                if value is not None and types.get(path) is not float:
                    types[path] = _type_of(value, floats=floats)
    tree: dict[str, Any] = {}
    for path in paths:
        _add_type(tree, path, types.get(path, str), explode)
    return pa.schema([(name, _arrow_type(node)) for name, node in tree.items()])


def _type_of(value: Any, *, floats: bool) -> type:
    if isinstance(value, _Number):
        return int if value.removeprefix("-").isdecimal() and not floats else float
    return type(value)


def _add_type(tree: dict[str, Any], path: str, kind: type, explode: str) -> None:
    """Add the type of a path's values to a tree of types.

    Args:
        tree: by key, a type, a tree for an object, or a list of one of these for a JSON list.
        path: of the values.
        kind: their Python type.
        explode: the path of a list of events.
    """
    parts, walked = path.split("."), ""
    for number, part in enumerate(parts):
        walked = f"{walked}.{part}" if walked else part
        is_list, is_last = walked == explode, number + 1 == len(parts)
        if is_last:
            tree.setdefault(part, [kind] if is_list else kind)
            return
        below = tree.setdefault(part, [{}] if is_list else {})
        below = below[0] if isinstance(below, list) else below
        if not isinstance(below, dict):
            return  # both a value and an object: those lines are parsed one by one
        tree = below


def _arrow_type(kind: Any) -> pa.DataType:
    if isinstance(kind, dict):
        return pa.struct([(name, _arrow_type(inner)) for name, inner in kind.items()])
    if isinstance(kind, list):
        return pa.list_(_arrow_type(kind[0]))
    return {int: pa.int64(), float: pa.float64(), bool: pa.bool_()}.get(kind, pa.string())


def _value_regex(depth: int) -> str:
    """JSON values whose lists and objects are nested at most `depth` levels deep."""
    if not depth:
        return _SCALAR
    inner = _value_regex(depth - 1)
    listed = rf"\[{_BLANK}(?:{inner}{_BLANK}(?:,{_BLANK}{inner}{_BLANK})*)?\]"
    return f"(?:{_SCALAR}|{listed}|{_object_regex(inner)})"


def _object_regex(value: str) -> str:
    pair = rf'"(?:[^"\\\x00-\x1f]|\\["\\/bfnrt])*"{_BLANK}:{_BLANK}{value}{_BLANK}'
    return rf"\{{{_BLANK}(?:{pair}(?:,{_BLANK}{pair})*)?\}}"


# A line that is one valid JSON object, nested at most three levels deep.
OBJECT_REGEX = f"^{_object_regex(_value_regex(2))}$"
