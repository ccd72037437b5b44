"""Snapshots of tables: what Delta and Iceberg planning have in common."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from embedmill.pipeline.errors import ConfigError
from embedmill.pipeline.store.sources import Source

__all__ = [
    "TableFile",
    "TableSnapshot",
    "Wanted",
    "absolute_url",
    "stamped_number",
    "wanted_snapshot",
]


@dataclass(frozen=True)
class TableFile:
    """A live data file of a snapshot.

    Attributes:
        source: the file.
        view: how its rows are read: a `TableView`, encoded.
        partition: values of its partition, as text; nulls are left out.
    """

    source: Source
    view: str
    partition: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class TableSnapshot:
    """A table as it was at one time.

    Attributes:
        kind: "delta" or "iceberg".
        url: the table's folder.
        table: id of the table.
        number: version of a Delta table, id of an Iceberg snapshot; -1 for a table without any.
        columns: the table's schema, as text.
        files: its live data files, by URL.
    """

    kind: str
    url: str
    table: str
    number: int
    columns: str
    files: tuple[TableFile, ...]

    @property
    def stamp(self) -> str:
        """What the snapshot is, for fingerprints: another stamp, other rows or columns."""
        live = [[f.source.url.removeprefix(self.url), f.source.bytes] for f in self.files]
        digest = hashlib.sha256(json.dumps([self.columns, live]).encode()).hexdigest()[:16]
        return f"{self.kind} table {self.table}, snapshot {self.number}, files {digest}"


def stamped_number(stamp: str) -> int:
    """The number of the snapshot that a stamp is of."""
    return int(stamp.split("snapshot ")[1].split(",")[0])


@dataclass(frozen=True)
class Wanted:
    """The snapshot that `events.snapshot` names: by number, time or name; none for the latest."""

    number: int | None = None
    time: datetime | None = None
    name: str = ""

    def __str__(self) -> str:
        return self.name or str(self.number if self.time is None else self.time)


def wanted_snapshot(text: str) -> Wanted:
    """The snapshot that a text of the config names.

    Raises:
        ConfigError: it looks like a time and is none.
    """
    if not text:
        return Wanted()
    if text.isascii() and text.isdigit():
        return Wanted(number=int(text))
    if not text[:4].isdigit():
        return Wanted(name=text)
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError(
            f"neither a number nor an ISO time: '{text}'", where="events.snapshot"
        ) from None
    return Wanted(time=time if time.tzinfo else time.replace(tzinfo=UTC))


def absolute_url(url: str) -> str:
    """The URL of a folder, without a slash at its end; of a local path its file:// URL."""
    if "://" not in url:
        url = f"file://{os.path.abspath(os.path.expanduser(url))}"
    return url.rstrip("/")
