"""What must hold of an artifact before its manifest is written: schemas and row counts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pyarrow as pa

from pipeline.errors import ContractError
from schemas.manifest import FileEntry
from schemas.tables import TABLES

__all__ = ["LAWS", "check_counters", "check_files", "check_schema"]

# Conservation: the left counter equals the sum of the right ones, at every commit.
LAWS: dict[str, list[tuple[str, tuple[str, ...]]]] = {
    "events": [("rows_in", ("events", "rejected", "merged"))],
    "vocab": [("events_in", ("events_kept", "events_dropped"))],
    "shards": [("events_in", ("train", "valid", "test", "dropped"))],
    "export": [("users_in", ("users",)), ("items_in", ("items",))],
    "index": [("items_in", ("indexed",))],
}

# Rows of the files below a folder add up to a counter.
_ROWS: dict[str, dict[str, str]] = {
    "events": {"data": "events", "rejects": "rejects_kept"},
    "vocab": {"users": "users", "items": "items"},
    "shards": {"train": "train", "valid": "valid", "test": "test"},
    "export": {"users": "users", "items": "items"},
}


def check_schema(stage: str, path: str, schema: pa.Schema, where: str) -> None:
    """Raise ContractError unless the table at `path` has the schema of its contract."""
    fixed = TABLES.get((stage, path.split("/", 1)[0]))
    if fixed is not None and not schema.equals(fixed):
        raise ContractError(
            f"schema of '{path}' is {_short(schema)}, the contract of '{stage}' is {_short(fixed)}",
            where=where,
        )


def check_counters(stage: str, counters: Mapping[str, int], where: str) -> None:
    """Raise ContractError unless every conservation law of the stage holds."""
    for total, parts in LAWS.get(stage, []):
        missing = [name for name in (total, *parts) if name not in counters]
        if missing:
            raise ContractError(f"'{stage}' did not count {', '.join(missing)}", where=where)
        if counters[total] != sum(counters[part] for part in parts):
            said = " + ".join(f"{part} {counters[part]:,}" for part in parts)
            raise ContractError(
                f"rows are not conserved in '{stage}': {total} {counters[total]:,} is not {said}",
                where=where,
                todo="This is a bug; nothing was committed",
            )


def check_files(
    stage: str, files: Iterable[FileEntry], counters: Mapping[str, int], where: str
) -> None:
    """Raise ContractError unless paths are distinct and rows of files match the counters."""
    files = list(files)
    paths = [f.path for f in files]
    twice = {p for p in paths if paths.count(p) > 1} if len(set(paths)) < len(paths) else set()
    if twice:
        raise ContractError(f"'{min(twice)}' was written twice", where=where)
    for folder, counter in _ROWS.get(stage, {}).items():
        rows = sum(f.rows or 0 for f in files if f.path.startswith(f"{folder}/"))
        if rows != counters.get(counter, 0):
            raise ContractError(
                f"files below '{folder}' hold {rows:,} rows, "
                f"the counter '{counter}' says {counters.get(counter, 0):,}",
                where=where,
                todo="This is a bug; nothing was committed",
            )


def _short(schema: pa.Schema) -> str:
    return ", ".join(f"{f.name}: {f.type}{'' if f.nullable else ' not null'}" for f in schema)
