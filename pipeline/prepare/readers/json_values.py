"""JSON values: one line parsed in Python, values as text, the Arrow types of fields."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa

from embedmill.pipeline.prepare.parse.records import event_values

__all__ = ["OBJECT_REGEX", "guess_schema", "parse_object", "text_of", "text_or_boolean"]

_SAMPLE_LINES = 50  # whose values decide the types
_BLANK = r"[ \t]*"
_SCALAR = (
    r'(?:"(?:[^"\\\x00-\x1f]|\\["\\/bfnrt]|\\u[0-9a-fA-F]{4})*"'
    r"|-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?|true|false|null)"
)


def parse_object(line: str) -> dict[str, Any] | None:
    """The JSON object in a line; None where it holds none."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def text_of(value: Any) -> str | None:
    """A string or number as text; None (missing) for anything else and for lone surrogates."""
    if isinstance(value, str):
        return value if value.isascii() or _encodable(value) else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if isinstance(value, float):  # as Arrow writes it
        return str(pa.scalar(value).cast(pa.string()).as_py())
    return repr(value)


def text_or_boolean(value: Any) -> str | None:
    """As `text_of`, but true and false are values too: 'true' and 'false'."""
    return json.dumps(value) if isinstance(value, bool) else text_of(value)


def _encodable(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def guess_schema(lines: pa.Array, paths: list[str], explode: str) -> pa.Schema:
    """Arrow types of fields, by their values in the first lines.

    Args:
        lines: JSON objects, as strings.
        paths: of the fields.
        explode: path of the list of events; empty where a record is an event.
    """
    records = [parse_object(line) for line in lines.slice(0, _SAMPLE_LINES).to_pylist()]
    types: dict[str, type] = {}
    for record in records:
        for values in (record and event_values(record, paths, explode)) or ():
            for path, value in zip(paths, values, strict=True):
                if value is not None and types.get(path) is not float:
                    types[path] = type(value)
    tree: dict[str, Any] = {}
    for path in paths:
        _add_type(tree, path, types.get(path, str), explode)
    return pa.schema([(name, _arrow_type(node)) for name, node in tree.items()])


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
