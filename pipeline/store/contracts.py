"""What must hold of an artifact before its manifest is written: schemas and row counts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pyarrow as pa

from embedmill.pipeline.errors import ContractError
from embedmill.schemas.manifest import FileEntry
from embedmill.schemas.tables import TABLES

__all__ = [
    "DROPS",
    "LAWS",
    "LAWS_IF_ASKED",
    "RULES",
    "check_counters",
    "check_files",
    "check_schema",
    "too_many_rejects",
]

# Conservation: the left counter equals the sum of the right ones, at every commit.
LAWS: dict[str, list[tuple[str, tuple[str, ...]]]] = {
    "events": [("rows_in", ("events", "rejected", "merged"))],
    "vocab": [
        ("events_in", ("events_kept", "events_dropped")),
        ("users", ("users_live", "users_retired", "users_shared")),
        ("items", ("items_live", "items_retired", "items_shared")),
    ],
    "shards": [("events_in", ("train", "valid", "test", "dropped"))],
    "export": [("users_in", ("users",)), ("items_in", ("items",))],
    "index": [("items_in", ("indexed", "not_live"))],
}

# The same, where a stage was asked to write what the right counters count.
LAWS_IF_ASKED: dict[str, list[tuple[tuple[str, ...], tuple[str, ...]]]] = {
    "shards": [
        (("train",), ("pairs_events", "pairs_thinned_out", "pairs_shared_out")),
        (("pairs_found",), ("pairs_counted",)),
        (
            ("train", "valid"),
            (
                "pairs_with_valid_events",
                "pairs_with_valid_thinned_out",
                "pairs_with_valid_shared_out",
            ),
        ),
        (("pairs_with_valid_found",), ("pairs_with_valid_counted",)),
    ],
    "index": [
        (("indexed",), ("kept", "changed", "new")),
        (("indexed_before",), ("kept", "changed", "removed")),
        (("base_places",), ("in_base", "tombstones")),
        (("indexed",), ("in_base", "in_delta")),
    ],
}

# What a rule can drop a row of the log for, and the key that asks for it, in their order.
RULES: dict[str, str] = {
    "filtered": "events.filter",
    "other_type": "events.signals.types",
    "underweight": "events.signals.min_weight",
    "repeated": "events.drop_repeats",
    "bots": "events.signals.max_user_day",
    "underweight_merged": "events.signals.min_merged_weight",
    "capped": "events.signals.max_user_events",
}

# Right counters that are there only where a rule of the config asks for them.
DROPS: dict[str, tuple[str, ...]] = {"events": tuple(RULES)}

# Rows of the files below a folder add up to a counter.
_ROWS: dict[str, dict[str, str]] = {
    "events": {"data": "events", "rejects": "rejects_kept"},
    "vocab": {"users": "users", "items": "items"},
    "shards": {
        "train": "train",
        "valid": "valid",
        "test": "test",
        "pairs": "pairs",
        "pairs_with_valid": "pairs_with_valid",
    },
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
    laws: list[tuple[tuple[str, ...], tuple[str, ...]]]
    drops = tuple(name for name in DROPS.get(stage, ()) if name in counters)
    laws = [((total,), (*parts, *drops)) for total, parts in LAWS.get(stage, [])]
    laws += [law for law in LAWS_IF_ASKED.get(stage, []) if counters.keys() & set(law[1])]
    for totals, parts in laws:
        missing = [name for name in (*totals, *parts) if name not in counters]
        if missing:
            raise ContractError(f"'{stage}' did not count {', '.join(missing)}", where=where)
        if sum(counters[total] for total in totals) != sum(counters[part] for part in parts):
            whole, said = (
                " + ".join(f"{name} {counters[name]:,}" for name in names)
                for names in (totals, parts)
            )
            raise ContractError(
                f"rows are not conserved in '{stage}': {whole} is not {said}",
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


def too_many_rejects(events: Mapping[str, int], most: float) -> str:
    """That more of the lines read are bad than the share `most`, or all; '' where it is not so.

    Lines that rules dropped unread make a log no better.
    """
    rows = events["rows_in"] - sum(events.get(name, 0) for name in ("filtered", "other_type"))
    bad = events["rejected"]
    if not rows or (bad <= most * rows and bad < rows):
        return ""
    return f"{bad:,} of {rows:,} lines are bad, more than events.max_rejects = {most:g} allows"
