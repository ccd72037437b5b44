"""Avro schemas: the Arrow type that each means, and the decoding of records.

Source: Apache Avro 1.12 specification, "Schema Declaration" and "Logical Types".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import pyarrow as pa

__all__ = ["RecordDecoder", "record_decoder"]

Convert = Callable[[Any], Any]

_PRIMITIVES: dict[str, Callable[[], pa.DataType]] = {
    "null": pa.null,
    "boolean": pa.bool_,
    "int": pa.int32,
    "long": pa.int64,
    "float": pa.float32,
    "double": pa.float64,
    "bytes": pa.binary,
    "string": pa.string,
    "enum": pa.string,
}
_LOGICAL: dict[str, Callable[[], pa.DataType]] = {
    "date": pa.date32,
    "timestamp-millis": lambda: pa.timestamp("ms", "UTC"),
    "timestamp-micros": lambda: pa.timestamp("us", "UTC"),
    "timestamp-nanos": lambda: pa.timestamp("ns", "UTC"),
    "local-timestamp-millis": lambda: pa.timestamp("ms"),
    "local-timestamp-micros": lambda: pa.timestamp("us"),
    "local-timestamp-nanos": lambda: pa.timestamp("ns"),
}


@dataclass(frozen=True)
class _Node:
    """A type of the schema.

    Attributes:
        type: the Arrow type.
        convert: from a decoded value to what Arrow takes; None where they are the same.
    """

    type: pa.DataType
    convert: Convert | None = None


@dataclass(frozen=True)
class RecordDecoder:
    """Decodes records of one schema.

    Attributes:
        schema: of their columns.
        decode: reads the next record from a block's bytes, as a dict of bare values.
    """

    schema: pa.Schema
    decode: Callable[[Any], dict[str, Any]]
    _nodes: Mapping[str, _Node]

    def batch(self, records: list[dict[str, Any]], columns: list[str]) -> pa.RecordBatch:
        """The columns of some records."""
        arrays = []
        for name in columns:
            node = self._nodes[name]
            values = [record[name] for record in records]
            if node.convert is not None:
                values = [None if value is None else node.convert(value) for value in values]
            arrays.append(pa.array(values, node.type))
        schema = pa.schema([self.schema.field(name) for name in columns])
        if not columns:
            return pa.RecordBatch.from_struct_array(pa.array([{}] * len(records), pa.struct([])))
        return pa.RecordBatch.from_arrays(arrays, schema=schema)


def record_decoder(writer_schema: Any) -> RecordDecoder:
    """What decodes the records of a file.

    Args:
        writer_schema: of the file, as parsed JSON.

    Raises:
        ValueError: it is no record.
    """
    import fastavro

    if not isinstance(writer_schema, dict) or writer_schema.get("type") not in ("record", "error"):
        raise ValueError("its values are no records")
    bare = fastavro.parse_schema(_bare(writer_schema))

    def decode(data: Any) -> dict[str, Any]:
        return fastavro.schemaless_reader(data, bare, None)  # type: ignore[no-any-return]

    named: dict[str, Any] = {}
    _collect_names(writer_schema, named)
    nodes = {f["name"]: _node(f["type"], named, frozenset()) for f in writer_schema["fields"]}
    return RecordDecoder(
        pa.schema([(name, node.type) for name, node in nodes.items()]), decode, nodes
    )


def _bare(schema: Any) -> Any:
    """The schema without logical types, whose conversion fails for values out of their range."""
    if isinstance(schema, dict):
        left_out = ("logicalType", "__fastavro_parsed_schema", "__named_schemas")
        return {key: _bare(value) for key, value in schema.items() if key not in left_out}
    return [_bare(one) for one in schema] if isinstance(schema, list) else schema


def _collect_names(schema: Any, named: dict[str, Any]) -> None:
    """Record the named types, which fastavro has resolved to their full names."""
    if isinstance(schema, list):
        for one in schema:
            _collect_names(one, named)
    elif isinstance(schema, dict):
        if schema.get("type") in ("record", "error", "enum", "fixed"):
            named[schema["name"]] = schema
        for key in ("type", "items", "values"):
            if isinstance(schema.get(key), dict | list):
                _collect_names(schema[key], named)
        for field in schema.get("fields", ()):
            _collect_names(field["type"], named)


def _node(schema: Any, named: Mapping[str, Any], above: frozenset[str]) -> _Node:
    """The type of a schema.

    Args:
        schema: a part of the file's schema.
        named: all named types.
        above: records that hold this one; one that holds itself has no Arrow type and is null.
    """
    if isinstance(schema, list):
        return _union(schema, named, above)
    if isinstance(schema, str):
        if schema in _PRIMITIVES:
            return _Node(_PRIMITIVES[schema]())
        schema = named[schema]
    kind = schema["type"]
    if isinstance(kind, dict | list):
        return _node(kind, named, above)
    logical = _logical(schema)
    if logical is not None:
        return logical
    if kind in ("record", "error"):
        if schema["name"] in above:
            return _Node(pa.null(), lambda _: None)
        return _struct(schema, named, above | {schema["name"]})
    if kind == "array":
        return _list(_node(schema["items"], named, above))
    if kind == "map":
        return _map(_node(schema["values"], named, above))
    if kind == "fixed":
        return _Node(pa.binary(schema["size"]))
    if kind in _PRIMITIVES:
        return _Node(_PRIMITIVES[kind]())
    return _node(kind, named, above)


def _logical(schema: Mapping[str, Any]) -> _Node | None:
    """The type that a logical type means; None where there is none, or it is unknown."""
    name, kind = schema.get("logicalType"), schema["type"]
    if name == "decimal" and kind in ("bytes", "fixed"):
        precision, scale = schema["precision"], schema.get("scale", 0)
        wide = pa.decimal128 if precision <= 38 else pa.decimal256
        return _Node(wide(precision, scale), lambda raw: _decimal(raw, scale))
    if name in _LOGICAL and kind in ("int", "long"):
        return _Node(_LOGICAL[name]())
    if name == "uuid" and kind == "fixed":
        return _Node(pa.uuid())
    return None


def _decimal(raw: bytes, scale: int) -> Decimal:
    """Big-endian two's complement, times 10^-scale; without the context's rounding."""
    unscaled = int.from_bytes(raw, "big", signed=True)
    digits = tuple(map(int, str(abs(unscaled))))
    return Decimal((int(unscaled < 0), digits, -scale))


def _union(schemas: list[Any], named: Mapping[str, Any], above: frozenset[str]) -> _Node:
    """The one type beside null; where there are several, the values as text."""
    nodes = [_node(one, named, above) for one in schemas if one != "null"]
    if len(nodes) == 1:
        return nodes[0]
    types = {node.type for node in nodes}
    if types and types <= {pa.int32(), pa.int64()}:
        return _Node(pa.int64())
    if types and types <= {pa.float32(), pa.float64()}:
        return _Node(pa.float64())
    if not nodes:
        return _Node(pa.null())
    return _Node(pa.string(), _scalar_text)


def _scalar_text(value: Any) -> str | None:
    """A value of a union of several types as JSON Lines would have it; None for nested ones."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, bytes):
        return value.decode(errors="strict") if value.isascii() else None
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 2**53 else repr(value)
    return str(value) if isinstance(value, str | int) else None


def _struct(schema: Mapping[str, Any], named: Mapping[str, Any], above: frozenset[str]) -> _Node:
    nodes = {f["name"]: _node(f["type"], named, above) for f in schema["fields"]}
    kind = pa.struct([(name, node.type) for name, node in nodes.items()])
    converts = {name: node.convert for name, node in nodes.items() if node.convert is not None}
    if not converts:
        return _Node(kind)

    def convert(record: dict[str, Any]) -> dict[str, Any]:
        changed = {n: f(record[n]) for n, f in converts.items() if record[n] is not None}
        return {**record, **changed}

    return _Node(kind, convert)


def _list(inner: _Node) -> _Node:
    each = inner.convert
    if each is None:
        return _Node(pa.list_(inner.type))
    return _Node(pa.list_(inner.type), lambda v: [None if x is None else each(x) for x in v])


def _map(inner: _Node) -> _Node:
    each = inner.convert or (lambda value: value)

    def convert(values: dict[str, Any]) -> list[tuple[str, Any]]:
        return [(key, None if value is None else each(value)) for key, value in values.items()]

    return _Node(pa.map_(pa.string(), inner.type), convert)
