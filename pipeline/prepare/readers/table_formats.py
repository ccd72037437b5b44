"""The tables that a log may be: which paths are tables, and their snapshots."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from embedmill.pipeline.errors import InputError
from embedmill.pipeline.prepare.readers.delta_table import delta_snapshot
from embedmill.pipeline.prepare.readers.iceberg_table import iceberg_snapshot
from embedmill.pipeline.prepare.readers.table_snapshot import (
    TableSnapshot,
    Wanted,
    stamped_number,
    wanted_snapshot,
)
from embedmill.pipeline.store.table_folders import table_kind

__all__ = ["TABLES", "pinned_snapshot"]

TABLES: Mapping[str, Callable[[str, Wanted], TableSnapshot]] = {
    "delta": delta_snapshot,
    "iceberg": iceberg_snapshot,
}


def pinned_snapshot(url: str, kind: str, snapshot: str, stamp: str) -> TableSnapshot | None:
    """The snapshot of a path that is a table; None where it is one of plain files.

    Args:
        url: a path of the config.
        kind: the format that the config says.
        snapshot: of the config: number, ISO time or name; empty for the latest.
        stamp: of the snapshot that the table is to be read at; empty for what the config says.

    Raises:
        InputError: it is none, or not of this format; `snapshot` is set, and it is no table; or
            the stamped snapshot is not what it was.
    """
    if kind == "auto":
        kind = "iceberg" if url.endswith(".metadata.json") else table_kind(url).lower()
    if kind not in TABLES:
        if snapshot:
            raise InputError(
                "is no table, and events.snapshot names a snapshot of one",
                where=url,
                todo="Set events.format to 'delta' or 'iceberg', or remove events.snapshot",
            )
        return None
    found = TABLES[kind](url, wanted_snapshot(snapshot))
    if stamp and stamp != found.stamp:
        # The table has a newer snapshot than the one that is in the fingerprint.
        found = TABLES[kind](url, Wanted(number=stamped_number(stamp)))
    if stamp and stamp != found.stamp:
        raise InputError(
            "the table's columns have changed since this run began",
            where=url,
            todo="Run the same command again",
        )
    return found
