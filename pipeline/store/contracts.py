"""What must hold of an artifact before its manifest is written: schemas and row counts."""

from __future__ import annotations

from collections.abc import Iterable

import pyarrow as pa

from embedmill.pipeline.errors import ContractError
from embedmill.schemas.contract import ArtifactContract, Counters
from embedmill.schemas.manifest import FileEntry
from embedmill.schemas.registry import CONTRACTS

__all__ = ["check_counters", "check_files", "check_schema"]

# Of a stage that the registry does not know: nothing is checked.
_NOTHING = ArtifactContract(status=lambda counters, count: "")


def check_schema(stage: str, path: str, schema: pa.Schema, where: str) -> None:
    """Raise ContractError unless a table has the schema that the contract of its stage fixes.

    Args:
        stage: the stage that writes the table.
        path: of the table's file inside the artifact.
        schema: the table's.
        where: the artifact's folder, for the error.
    """
    fixed = CONTRACTS.get(stage, _NOTHING).tables.get(path.split("/", 1)[0])
    if fixed is not None and not schema.equals(fixed):
        raise ContractError(
            f"schema of '{path}' is {_short(schema)}, the contract of '{stage}' is {_short(fixed)}",
            where=where,
        )


def check_counters(stage: str, counters: Counters, where: str) -> None:
    """Raise ContractError unless every conservation law of the stage holds."""
    for law in CONTRACTS.get(stage, _NOTHING).laws:
        if not law.applies(counters):
            continue
        totals, parts = law.terms(counters)
        missing = [name for name in (*totals, *parts) if name not in counters]
        if missing:
            raise ContractError(f"'{stage}' did not count {', '.join(missing)}", where=where)
        if sum(counters[total] for total in totals) != sum(counters[part] for part in parts):
            left, right = (
                " + ".join(f"{name} {counters[name]:,}" for name in names)
                for names in (totals, parts)
            )
            raise ContractError(
                f"rows are not conserved in '{stage}': {left} is not {right}",
                where=where,
                todo="This is a bug; nothing was committed",
            )


def check_files(stage: str, files: Iterable[FileEntry], counters: Counters, where: str) -> None:
    """Raise ContractError unless paths are distinct and rows of files match the counters.

    Args:
        stage: the stage that wrote the files.
        files: all files of the artifact.
        counters: of the stage.
        where: the artifact's folder, for the error.
    """
    files = list(files)
    paths = [f.path for f in files]
    twice = {p for p in paths if paths.count(p) > 1} if len(set(paths)) < len(paths) else set()
    if twice:
        raise ContractError(f"'{min(twice)}' was written twice", where=where)
    for folder, counter in CONTRACTS.get(stage, _NOTHING).rows.items():
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
