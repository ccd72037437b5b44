"""Hive folders of files: `date=2026-11-24/country=de/part-0.parquet`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from urllib.parse import unquote

from embedmill.pipeline.config.input import InputConfig
from embedmill.pipeline.errors import InputError
from embedmill.pipeline.prepare.readers.table_snapshot import TableSnapshot
from embedmill.pipeline.store.sources import Source

__all__ = ["DatedFiles", "RawFile", "files_in_range", "folder_day", "folder_values"]

_NULL = "__HIVE_DEFAULT_PARTITION__"


def folder_values(url: str) -> dict[str, str]:
    """Names and values of a file's Hive folders; null values are left out."""
    values = {}
    for folder in url.split("/")[:-1]:
        name, equals, value = folder.partition("=")
        if equals and name and value != _NULL:
            values[unquote(name)] = unquote(value)
    return values


def folder_day(values: Mapping[str, str], names: Sequence[str]) -> str:
    """The day that a file's folders name, as 2026-11-24; empty where they name none.

    Args:
        values: of the folders, by name.
        names: the folder whose value is the day, or those of year, month and day.
    """
    parts = [values.get(name, "") for name in names]
    if not parts or not all(parts):
        return ""
    text = "-".join(parts[:1] + [part.zfill(2) for part in parts[1:]])
    try:
        return date.fromisoformat(text).isoformat()
    except ValueError:
        return ""


@dataclass(frozen=True)
class RawFile:
    """A file of a log or of item metadata.

    Attributes:
        name: what rejects and stamps call it; it does not depend on the machine.
        source: the file.
        folders: values of its Hive folders, or of its partition of a table.
        table: what stamps call the table that it is a data file of; empty for a plain file.
        snapshot: of that table.
        view: of a table's data file, how its rows are read: a `TableView`, encoded.
    """

    name: str
    source: Source
    folders: Mapping[str, str]
    table: str = ""
    snapshot: TableSnapshot | None = None
    view: str = ""


@dataclass(frozen=True)
class DatedFiles:
    """Files of the days that the config selects, and how many files lie outside of these."""

    files: list[RawFile]
    outside: int


def files_in_range(files: list[RawFile], config: InputConfig) -> DatedFiles:
    """The files whose folder's day is from date_from to date_to, both included.

    Raises:
        InputError: days are selected and a file is in no folder of a day, or no file is in range.
    """
    if not (config.date_from or config.date_to):
        return DatedFiles(files, 0)
    days = [folder_day(file.folders, config.date_folders) for file in files]
    selected = []
    pattern = "/".join(f"{name}=…" for name in config.date_folders)
    for day, file in zip(days, files, strict=True):
        if not day:
            raise InputError(
                f"lies in no folder {pattern} that names a day, and events.date_from or "
                "events.date_to asks for days",
                where=file.source.url,
                todo="Check events.date_folders, or name paths without it",
            )
        if (config.date_from or day) <= day <= (config.date_to or day):
            selected.append(file)
    if not selected:
        wanted = f"from {config.date_from or 'the first'} to {config.date_to or 'the last'}"
        raise InputError(
            f"no file lies in a day {wanted}; there are {len(files):,} files "
            f"from {min(days)} to {max(days)}",
            where=", ".join(config.paths),
            todo="Check events.date_from and events.date_to",
        )
    return DatedFiles(selected, len(files) - len(selected))
