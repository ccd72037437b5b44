"""Nested records: fields by path, and records that hold a list of events.

A path is names joined by dots: "actor.id". Where a field's own name has dots and equals the path,
it is taken first. Where `events.explode` is the path of a list, paths that begin with it are
fields of the list's elements; all other paths are fields of the record that holds the list.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from embedmill.pipeline.prepare.parse.values import Ints, Mask, to_numpy

__all__ = [
    "ExplodedRecords",
    "event_values",
    "explode_records",
    "field_at",
    "has_field",
    "is_list",
    "value_at",
]


@dataclass(frozen=True)
class ExplodedRecords:
    """The events of R records, of which some have no list of events.

    Attributes:
        fields: values of the events by path, [N] each.
        records: position of each event's record, [N].
        lacking: whether a record has no list of events, [R].
    """

    fields: dict[str, pa.Array]
    records: Ints
    lacking: Mask


def has_field(kind: pa.DataType, path: str, explode: str) -> bool:
    """Whether records of a type have a field at a path.

    Args:
        kind: a struct.
        path: of the field.
        explode: path of the list of events; empty where a record is an event.
    """
    if explode and (path == explode or path.startswith(f"{explode}.")):
        inner = _type_at(kind, explode)
        if inner is None or not is_list(inner):
            return False
        return path == explode or _type_at(inner.value_type, path[len(explode) + 1 :]) is not None
    return _type_at(kind, path) is not None


def explode_records(records: pa.StructArray, paths: list[str], explode: str) -> ExplodedRecords:
    """The fields of all events.

    Args:
        records: [R].
        paths: of the fields.
        explode: path of the list of events; empty where a record is an event.
    """
    rows = len(records)
    if not explode:
        columns = {path: field_at(records, path) for path in paths}
        fields = {path: column for path, column in columns.items() if column is not None}
        return ExplodedRecords(fields, np.arange(rows), np.zeros(rows, bool))
    lists = field_at(records, explode)
    if lists is None or not is_list(lists.type):
        return ExplodedRecords({}, np.empty(0, np.int64), np.ones(rows, bool))
    lacking = to_numpy(lists.is_null()).astype(bool)
    parents = to_numpy(pc.list_parent_indices(lists)).astype(np.int64)
    elements = pc.list_flatten(lists)
    fields = {}
    for path in paths:
        if path == explode:
            column = elements
        elif path.startswith(f"{explode}."):
            column = field_at(elements, path[len(explode) + 1 :])
        else:
            column = field_at(records, path)
            column = None if column is None else column.take(pa.array(parents))
        if column is not None:
            fields[path] = column
    return ExplodedRecords(fields, parents, lacking)


def field_at(records: pa.Array, path: str) -> pa.Array | None:
    """The field at a path, null where a record has none; None where the type has no such field."""
    if not pa.types.is_struct(records.type):
        return None
    if records.type.get_field_index(path) >= 0:
        return pc.struct_field(records, [records.type.get_field_index(path)])
    head, dot, rest = path.partition(".")
    while dot:
        if records.type.get_field_index(head) >= 0:
            return field_at(pc.struct_field(records, [records.type.get_field_index(head)]), rest)
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


def event_values(
    record: dict[str, Any], paths: list[str], explode: str
) -> Iterator[list[Any]] | None:
    """The values at the paths for each event of a parsed JSON object.

    None where `explode` is given and the object has no list there.
    """
    if not explode:
        return iter([[value_at(record, path) for path in paths]])
    events = value_at(record, explode)
    if not isinstance(events, list):
        return None
    prefix = f"{explode}."
    return (
        [
            event
            if path == explode
            else value_at(event, path[len(prefix) :])
            if path.startswith(prefix)
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


def is_list(kind: pa.DataType) -> bool:
    """Whether the type is a list of any kind."""
    return bool(
        pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    )
