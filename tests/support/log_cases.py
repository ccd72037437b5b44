"""The cases of `tests/logs`: a small log, its config, and what must come of it.

`tests/logs/README.md` tells how a case is written.
"""

from __future__ import annotations

import base64
import bz2
import gzip
import io
import json
import tomllib
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import fastavro
import pyarrow as pa
import pyarrow.csv
import pyarrow.orc
import pyarrow.parquet as pq
from deltalake import write_deltalake

from tests.support.log_tables import iceberg_table

__all__ = ["CASES", "Case", "Reading", "arrow_delimited", "arrow_parquet", "cases", "readings"]

CASES = Path(__file__).parent.parent / "logs"

_KEYS = {"about", "events", "items", "ids", "file", "table", "expected", "variants"}
_EXPECTED = {"events", "rejects", "error", "items", "ids"}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NOT_EXPECTED = {"user": "user_missing", "item": "item_missing", "time": "time"}
_DEFAULTS = {"user": "nobody", "item": "nothing", "time": "2001-02-03T04:05:06Z"}


@dataclass(frozen=True)
class Case:
    """One folder of `tests/logs`."""

    folder: Path

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.name

    def read(self) -> dict[str, Any]:
        """`case.toml`, with no key that the runner would pass over."""
        tree = tomllib.loads((self.folder / "case.toml").read_text(encoding="utf-8"))
        unknown = (set(tree) - _KEYS) | (set(tree.get("expected", {})) - _EXPECTED)
        assert not unknown, f"{self.name}/case.toml: unknown keys {sorted(unknown)}"
        assert tree.get("expected"), f"{self.name}/case.toml: nothing is expected"
        return tree


@dataclass(frozen=True)
class Reading:
    """One way in which a case is read: a format it is written in, a variant of its config."""

    case: Case
    format: str
    variant: str

    @property
    def name(self) -> str:
        """Of the test."""
        return "-".join(part for part in (self.case.name, self.format, self.variant) if part)

    def write(self, folder: Path) -> None:
        """The case's files, below `folder`."""
        tree = self.case.read()
        for file in tree.get("file", ()):
            _write_file(folder, file)
        if self.format:
            table = _table(tree["table"]["columns"])
            path = folder / "log" / f"table.{self.format}"
            path.parent.mkdir(parents=True, exist_ok=True)
            if self.format in _TABLE_WRITERS:
                _TABLE_WRITERS[self.format](table, folder / "log")
            else:
                path.write_bytes(_WRITERS[self.format](table))

    def sections(self, folder: Path) -> dict[str, Any]:
        """The config's sections `events` and `items`, with paths below `folder`."""
        tree = self.case.read()
        events = {"paths": "log", "format": "auto", "max_rejects": 1.0, **tree.get("events", {})}
        events["paths"] = _below(folder, events["paths"])
        events = _VARIANTS[self.variant](events, tree["expected"])
        if "items" in tree:
            items = {"paths": "items", "format": "auto", **tree["items"]}
            events["items"] = {**items, "paths": _below(folder, items["paths"])}
        return events


def cases() -> list[Case]:
    """All of them, by name."""
    return [Case(path.parent) for path in sorted(CASES.glob("*/case.toml"))]


def readings() -> list[Reading]:
    """Every case in every format that it can be written in, and in every variant."""
    return [one for case in cases() for one in _readings_of(case)]


def expected_events(tree: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    """The events that a case names, each with as many fields as it states."""
    return sorted(
        (tuple(_microseconds(value) for value in row) for row in tree["expected"]["events"]),
        key=repr,
    )


def _readings_of(case: Case) -> Iterator[Reading]:
    tree = case.read()
    formats = tree.get("table", {}).get("formats", [""])
    alike = "events" in tree["expected"] and "error" not in tree["expected"]
    variants = tree.get("variants", [*_VARIANTS] if alike else [""])
    for kind in formats:
        for variant in variants:
            yield Reading(case, kind, variant)


def _below(folder: Path, paths: str | list[str]) -> str | list[str]:
    if isinstance(paths, str):
        return paths if "://" in paths else str(folder / paths)
    return [str(_below(folder, path)) for path in paths]


def _microseconds(value: Any) -> Any:
    """A time as events have it: microseconds since 1970, UTC."""
    if isinstance(value, datetime):
        return (value - _EPOCH) // timedelta(microseconds=1)
    return value


# Variants of a config that must not change what is read.


def _with_aliases(events: dict[str, Any], _: Mapping[str, Any]) -> dict[str, Any]:
    """Every column is named by an alias."""
    renamed, aliases = dict(events), dict(events.get("aliases", {}))
    for key in ("user", "item", "time", "weight"):
        column = events.get(key, {"user": "user_id", "item": "item_id"}.get(key))
        if column and column not in aliases and not any(column in a for a in aliases.values()):
            renamed[key] = f"another_{key}"
            aliases[f"another_{key}"] = [column]
    defaults = dict(events.get("defaults", {}))
    for name, others in aliases.items():
        if others[0] in defaults:
            defaults[name] = defaults.pop(others[0])
    return {**renamed, "aliases": aliases, "defaults": defaults}


def _with_defaults(events: dict[str, Any], expected: Mapping[str, Any]) -> dict[str, Any]:
    """Every column has a default, unless the case expects a reject for a missing value."""
    defaults = dict(events.get("defaults", {}))
    for key, reason in _NOT_EXPECTED.items():
        column = events.get(key, {"user": "user_id", "item": "item_id"}.get(key))
        usable = key != "time" or events.get("time_unit") in ("iso", "auto")
        if column and usable and reason not in expected.get("rejects", {}):
            defaults.setdefault(column, _DEFAULTS[key])
    return {**events, "defaults": defaults}


_VARIANTS: dict[str, Callable[[dict[str, Any], Mapping[str, Any]], dict[str, Any]]] = {
    "": lambda events, _: events,
    "aliases": _with_aliases,
    "defaults": _with_defaults,
}


# Files.


def _write_file(folder: Path, file: Mapping[str, Any]) -> None:
    path = folder / file["name"]
    path.parent.mkdir(parents=True, exist_ok=True)
    if "link" in file:
        path.symlink_to(file["link"])
        return
    encoding, mark = file.get("encoding", "utf-8"), "\ufeff" if file.get("bom") else ""
    text = mark + file.get("text", "")
    data = base64.b64decode(file["base64"]) if "base64" in file else text.encode(encoding)
    path.write_bytes(_COMPRESSIONS[file.get("compression", "none")](data))


_COMPRESSIONS: dict[str, Callable[[bytes], bytes]] = {
    "none": lambda data: data,
    "gzip": lambda data: gzip.compress(data, mtime=0),
    "bzip2": bz2.compress,
    "zstd": lambda data: pa.compress(data, codec="zstd", asbytes=True),
}


# Tables. A column is `{ type = "int64", values = [...], null = [1] }`: rows of `null`, counted
# from 0, have no value whatever `values` says.

_TYPES: dict[str, Callable[[], pa.DataType]] = {
    "string": pa.string,
    "large_string": pa.large_string,
    "string_view": pa.string_view,
    "dictionary": lambda: pa.dictionary(pa.int32(), pa.string()),
    "binary": pa.binary,
    "large_binary": pa.large_binary,
    "binary16": lambda: pa.binary(16),
    "bool": pa.bool_,
    "int8": pa.int8,
    "int32": pa.int32,
    "int64": pa.int64,
    "uint64": pa.uint64,
    "half": pa.float16,
    "float": pa.float32,
    "double": pa.float64,
    "decimal": lambda: pa.decimal128(38, 0),
    "decimal2": lambda: pa.decimal128(38, 2),
    "date": pa.date32,
    "timestamp_s": lambda: pa.timestamp("s"),
    "timestamp_ms": lambda: pa.timestamp("ms"),
    "timestamp": lambda: pa.timestamp("us"),
    "timestamp_utc": lambda: pa.timestamp("us", "UTC"),
    "timestamp_ns": lambda: pa.timestamp("ns"),
    "uuid": pa.uuid,
    "list": lambda: pa.list_(pa.string()),
}


def _column(spec: Mapping[str, Any]) -> pa.Array:
    kind = _TYPES[spec["type"]]()
    nulls = set(spec.get("null", ()))
    values = [None if n in nulls else _typed(v, kind) for n, v in enumerate(spec["values"])]
    if isinstance(kind, pa.UuidType):
        return pa.ExtensionArray.from_storage(kind, pa.array(values, kind.storage_type))
    if pa.types.is_dictionary(kind):
        return pa.array(values, pa.string()).dictionary_encode()
    return pa.array(values, kind)


def _typed(value: Any, kind: pa.DataType) -> Any:
    """A value of the TOML as Arrow takes it for a type."""
    if isinstance(kind, pa.UuidType):
        return uuid.UUID(value).bytes
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return value.encode()
    if pa.types.is_fixed_size_binary(kind):
        return base64.b16decode(value)
    if pa.types.is_decimal(kind):
        return Decimal(value)
    return value


def _table(columns: Mapping[str, Mapping[str, Any]]) -> pa.Table:
    return pa.table({name: _column(spec) for name, spec in columns.items()})


def _text(value: Any) -> str:
    """A value as the usual tools write it into a delimited file."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, bytes):
        return value.decode()
    return value.isoformat() if isinstance(value, date | datetime) else str(value)


def arrow_delimited(table: pa.Table, separator: str) -> bytes:
    """A delimited file as Arrow writes it: with quotes where they are needed, none in TSV."""
    out = io.BytesIO()
    quoting = "needed" if separator == "," else "none"
    options = pa.csv.WriteOptions(
        delimiter=separator, quoting_style=quoting, quoting_header=quoting
    )
    pa.csv.write_csv(table, out, options)
    return out.getvalue()


def _delimited(separator: str) -> Callable[[pa.Table], bytes]:
    def write(table: pa.Table) -> bytes:
        rows = pa.table(
            {n: pa.array([_text(v) for v in table[n].to_pylist()]) for n in table.column_names}
        )
        return arrow_delimited(rows, separator)

    return write


def _json_lines(table: pa.Table) -> bytes:
    """Records without the keys whose values are missing; NaN and infinity as Python writes them."""
    return "".join(
        json.dumps({k: _json_value(v) for k, v in row.items() if v is not None}) + "\n"
        for row in table.to_pylist()
    ).encode()


def _json_value(value: Any) -> Any:
    if isinstance(value, Decimal) and value == int(value):
        return int(value)
    return value if isinstance(value, bool | int | float | str | list) else _text(value)


def arrow_parquet(table: pa.Table) -> bytes:
    """A Parquet file as Arrow writes it."""
    out = io.BytesIO()
    pq.write_table(table, out)
    return out.getvalue()


def _orc(table: pa.Table) -> bytes:
    out = io.BytesIO()
    pa.orc.write_table(table, out)
    return out.getvalue()


_AVRO_TYPES = {
    "string": "string",
    "large_string": "string",
    "binary": "bytes",
    "bool": "boolean",
    "int8": "int",
    "int32": "int",
    "int64": "long",
    "float": "float",
    "double": "double",
    "date32[day]": {"type": "int", "logicalType": "date"},
    "timestamp[ms]": {"type": "long", "logicalType": "local-timestamp-millis"},
    "timestamp[us]": {"type": "long", "logicalType": "local-timestamp-micros"},
    "timestamp[us, tz=UTC]": {"type": "long", "logicalType": "timestamp-micros"},
    "decimal128(38, 0)": {"type": "bytes", "logicalType": "decimal", "precision": 38},
    "decimal128(38, 2)": {"type": "bytes", "logicalType": "decimal", "precision": 38, "scale": 2},
    "list<item: string>": {"type": "array", "items": ["null", "string"]},
    "fixed_size_binary[16]": {"type": "fixed", "name": "sixteen", "size": 16},
}


def _avro(table: pa.Table) -> bytes:
    fields = [
        {"name": f.name, "type": ["null", _AVRO_TYPES[str(f.type)]], "default": None}
        for f in table.schema
    ]
    schema = fastavro.parse_schema({"type": "record", "name": "row", "fields": fields})
    out = io.BytesIO()
    fastavro.writer(out, schema, table.to_pylist(), codec="deflate")
    return out.getvalue()


_WRITERS: dict[str, Callable[[pa.Table], bytes]] = {
    "csv": _delimited(","),
    "tsv": _delimited("\t"),
    "jsonl": _json_lines,
    "parquet": arrow_parquet,
    "orc": _orc,
    "avro": _avro,
}


def _delta(table: pa.Table, folder: Path) -> None:
    """A table that has had other rows before."""
    write_deltalake(str(folder), table.slice(0, 1))
    write_deltalake(str(folder), table, mode="overwrite")


def _iceberg(table: pa.Table, folder: Path) -> None:
    """A table that has had other rows before."""
    written = iceberg_table(folder, table.schema)
    written.append(table.slice(0, 1))
    written.overwrite(table)


# Formats whose files only their table knows: written into the folder of the log.
_TABLE_WRITERS: dict[str, Callable[[pa.Table, Path], None]] = {
    "delta": _delta,
    "iceberg": _iceberg,
}
