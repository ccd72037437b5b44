"""Nested records: fields by path, and lists of events in a record.

A path is names with dots between: "actor.id". A field that is called so itself comes first.
Where `events.explode` names a list, a path that goes on behind it is a field of its elements
and every other one a field of the record that the list stands in.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from embedmill.pipeline.prepare.parse.values import Mask, as_array
from embedmill.pipeline.prepare.readers.parsed_batch import Ints

__all__ = ["Exploded", "events_of", "exploded", "field", "has_field", "value_at"]


@dataclass(frozen=True)
class Exploded:
    """Events of records: fields by path, the record of each, and the records without a list."""

    fields: dict[str, pa.Array]
    records: Ints
    lacking: Mask


def has_field(kind: pa.DataType, path: str, explode: str) -> bool:
    """Whether a struct, or an element of its list at `explode`, has a field at the path."""
    if explode and (path == explode or path.startswith(f"{explode}.")):
        inner = _type_at(kind, explode)
        if inner is None or not _is_list(inner):
            return False
        return path == explode or _type_at(inner.value_type, path[len(explode) + 1 :]) is not None
    return _type_at(kind, path) is not None


def exploded(records: pa.StructArray, paths: list[str], explode: str) -> Exploded:
    """The fields of all events; without `explode` a record is one event."""
    rows = len(records)
    if not explode:
        every = {path: field(records, path) for path in paths}
        fields = {path: found for path, found in every.items() if found is not None}
        return Exploded(fields, np.arange(rows), np.zeros(rows, bool))
    lists = field(records, explode)
    if lists is None or not _is_list(lists.type):
        return Exploded({}, np.empty(0, np.int64), np.ones(rows, bool))
    lacking = as_array(lists.is_null()).astype(bool)
    parents = as_array(pc.list_parent_indices(lists)).astype(np.int64)
    elements = pc.list_flatten(lists)
    fields = {}
    for path in paths:
        if path == explode:
            column = elements
        elif path.startswith(f"{explode}."):
            column = field(elements, path[len(explode) + 1 :])
        else:
            column = field(records, path)
            column = None if column is None else column.take(pa.array(parents))
        if column is not None:
            fields[path] = column
    return Exploded(fields, parents, lacking)


def field(records: pa.Array, path: str) -> pa.Array | None:
    """The field at a path, null where the record has none; None where no record can have it."""
    if not pa.types.is_struct(records.type):
        return None
    if records.type.get_field_index(path) >= 0:
        return pc.struct_field(records, [records.type.get_field_index(path)])
    head, dot, rest = path.partition(".")
    while dot:
        if records.type.get_field_index(head) >= 0:
            return field(pc.struct_field(records, [records.type.get_field_index(head)]), rest)
        more, dot, rest = rest.partition(".")
        head = f"{head}.{more}"
    return None


def value_at(record: Any, path: str) -> Any:
    """The value at a path of a parsed JSON object, or None."""
    if not isinstance(record, dict):
        return None
    if path in record:
        return record[path]
    head, dot, rest = path.partition(".")
    while dot:
        if head in record:
            return value_at(record[head], rest)
        more, dot, rest = rest.partition(".")
        head = f"{head}.{more}"
    return None


def events_of(record: dict[str, Any], paths: list[str], explode: str) -> Iterator[list[Any]] | None:
    """Values at the paths for each event of a parsed JSON object; None where it has no list."""
    if not explode:
        return iter([[value_at(record, path) for path in paths]])
    events = value_at(record, explode)
    if not isinstance(events, list):
        return None
    behind = f"{explode}."
    return (
        [
            event
            if path == explode
            else value_at(event, path[len(behind) :])
            if path.startswith(behind)
            else value_at(record, path)
            for path in paths
        ]
        for event in events
    )


def _type_at(kind: pa.DataType, path: str) -> pa.DataType | None:
    if not pa.types.is_struct(kind):
        return None
    if kind.get_field_index(path) >= 0:
        return kind.field(path).type
    head, dot, rest = path.partition(".")
    while dot:
        if kind.get_field_index(head) >= 0:
            return _type_at(kind.field(head).type, rest)
        more, dot, rest = rest.partition(".")
        head = f"{head}.{more}"
    return None


def _is_list(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    )
