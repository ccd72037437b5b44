"""Folders of Delta, Iceberg and Hudi tables, which must not be read as plain files.

Beside a table's rows they hold rows that were deleted or replaced since; only the table's own log
tells which files and rows are live.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable
from typing import Any

from embedmill.pipeline.errors import InputError
from embedmill.pipeline.store.object_store import ObjectStore
from embedmill.pipeline.store.storage import explained, file_system

__all__ = ["names_in", "refuse_tables_above", "refuse_tables_among", "table_kind"]

_LOGS = {"_delta_log": "Delta", ".hoodie": "Hudi"}
# An Iceberg table has these two, and its metadata one of the endings below.
_ICEBERG = {"data", "metadata"}
_ICEBERG_METADATA = ("metadata.json", "metadata.json.gz", "version-hint.text", ".avro")
# Seconds for which a folder of an object store that was no table is not asked about again: the
# sources of one run mostly lie beside each other.
_REMEMBERED = 30.0
_no_tables: dict[tuple[int, str], float] = {}


def table_kind(url: str) -> str:
    """The kind of table in a folder, "Delta", "Iceberg" or "Hudi"; empty where it is none."""
    fs, folder = file_system(url)
    fs.invalidate_cache()
    return _kind_of(fs, folder.rstrip("/"))


def names_in(url: str) -> list[str]:
    """Names in a folder, sorted; none where it is not there."""
    fs, folder = file_system(url)
    fs.invalidate_cache()
    with explained(url), contextlib.suppress(FileNotFoundError):
        return sorted(one.rstrip("/").rpartition("/")[2] for one in fs.ls(folder, detail=False))
    return []


def refuse_tables_above(fs: Any, paths: Iterable[str]) -> None:
    """Check that no folder at or above these paths is that of a table.

    Raises:
        InputError: one is.
    """
    protocols = fs.protocol if isinstance(fs.protocol, tuple) else (fs.protocol,)
    if {"http", "https"} & set(protocols):
        return  # no folders there
    for path in paths:
        parts = path.rstrip("/").split("/")
        for length in range(len(parts), 0, -1):
            folder = "/".join(parts[:length])
            if folder and not _is_known(fs, folder):
                _refuse(folder, _kind_of(fs, folder))
                _remember(fs, folder)


def _is_known(fs: Any, folder: str) -> bool:
    """Whether a folder of an object store was no table a moment ago."""
    at = _no_tables.get((id(fs.fs), folder)) if isinstance(fs, ObjectStore) else None
    return at is not None and time.monotonic() - at < _REMEMBERED


def _remember(fs: Any, folder: str) -> None:
    if isinstance(fs, ObjectStore):
        _no_tables[id(fs.fs), folder] = time.monotonic()


def refuse_tables_among(fs: Any, paths: Iterable[str]) -> None:
    """Check that none of the folders through which these paths lead is that of a table.

    Raises:
        InputError: one is.
    """
    suspects: dict[str, set[str]] = {}
    for path in paths:
        if not any(name in path for name in (*_LOGS, "metadata")):
            continue
        parts = path.rstrip("/").split("/")
        for number, part in enumerate(parts):
            if part in _LOGS or part == "metadata":
                suspects.setdefault("/".join(parts[:number]), set()).add(part)
    for folder in suspects:
        _refuse(folder, _kind_of(fs, folder))


def _kind_of(fs: Any, folder: str) -> str:
    """The kind of table that a folder holds; empty where it holds none."""
    for name, kind in _LOGS.items():
        if _is_folder(fs, f"{folder}/{name}"):
            return kind
    if all(_is_folder(fs, f"{folder}/{name}") for name in _ICEBERG):
        names = fs.ls(f"{folder}/metadata", detail=False)
        if any(name.endswith(_ICEBERG_METADATA) for name in names):
            return "Iceberg"
    return ""


def _is_folder(fs: Any, path: str) -> bool:
    try:
        return bool(fs.isdir(path))
    except (OSError, NotImplementedError):  # as where only a part of a bucket may be listed
        return False


def _refuse(folder: str, kind: str) -> None:
    if kind:
        todo = f"Name that folder in paths, with format = 'auto' or '{kind.lower()}'"
        if kind == "Hudi":
            todo = "Write the table's rows as Parquet files into another folder, and name that"
        raise InputError(
            f"is the folder of {'an' if kind == 'Iceberg' else 'a'} {kind} table, whose files "
            "also hold rows that were deleted or replaced",
            where=folder,
            todo=todo,
        )
