"""Hive folders of files: `date=2026-11-24/country=de/part-0.parquet`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from urllib.parse import unquote

from embedmill.pipeline.config.input import InputConfig
from embedmill.pipeline.errors import InputError
from embedmill.pipeline.store.storage import Source

__all__ = ["day_of", "in_range", "values_of"]

_NOTHING = "__HIVE_DEFAULT_PARTITION__"


def values_of(url: str) -> dict[str, str]:
    """Names and values of the folders that a file lies in; a null value is left out."""
    found = {}
    for folder in url.split("/")[:-1]:
        name, equals, value = folder.partition("=")
        if equals and name and value != _NOTHING:
            found[unquote(name)] = unquote(value)
    return found


def day_of(values: Mapping[str, str], names: Sequence[str]) -> str:
    """The day of a file by its folders, as 2026-11-24; empty where they name none.

    Of one name the value is the day; several are year, month and day.
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
class Range:
    """Files of the days that were asked for, and how many lie outside."""

    files: list[tuple[str, Source]]
    outside: int


def in_range(files: list[tuple[str, Source]], config: InputConfig) -> Range:
    """The files whose folder's day is within date_from and date_to, both included.

    Raises:
        InputError: a file lies in no folder of a day, or none is within.
    """
    if not (config.date_from or config.date_to):
        return Range(files, 0)
    days = [day_of(values_of(source.url), config.date_folders) for _, source in files]
    kept = []
    shape = "/".join(f"{name}=…" for name in config.date_folders)
    for day, (name, source) in zip(days, files, strict=True):
        if not day:
            raise InputError(
                f"lies in no folder {shape} that names a day, and events.date_from or "
                "events.date_to asks for days",
                where=source.url,
                todo="Check events.date_folders, or name paths without it",
            )
        if (config.date_from or day) <= day <= (config.date_to or day):
            kept.append((name, source))
    if not kept:
        asked = f"from {config.date_from or 'the first'} to {config.date_to or 'the last'}"
        raise InputError(
            f"no file lies in a day {asked}; there are {len(files):,} files "
            f"from {min(days)} to {max(days)}",
            where=", ".join(config.paths),
            todo="Check events.date_from and events.date_to",
        )
    return Range(kept, len(files) - len(kept))
