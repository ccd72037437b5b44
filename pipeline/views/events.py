"""The `events` artifact: events, rejected lines, events by day, item metadata."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa

from embedmill.pipeline.store.artifact import Artifact
from embedmill.pipeline.views.items import ItemMetadata
from embedmill.schemas.events import DATA, DAYS, REJECTED
from embedmill.schemas.manifest import FileEntry

__all__ = ["Events"]


@dataclass(frozen=True)
class Events:
    """What `events` holds."""

    artifact: Artifact

    @property
    def files(self) -> list[FileEntry]:
        """Files of events, for the engine that reads them."""
        return self.artifact.files(DATA.folder)

    @property
    def bytes(self) -> int:
        """Bytes of these files."""
        return sum(entry.bytes for entry in self.files)

    @property
    def items(self) -> ItemMetadata:
        """Item metadata; empty where the log has none."""
        return ItemMetadata(self.artifact)

    def days(self) -> list[tuple[str, int]] | None:
        """Days (UTC) that have events, as ISO dates in order, with their counts.

        None where the log has no times.
        """
        return self.artifact.read_json(DAYS) if self.artifact.has(DAYS.path) else None

    def rejects(self, rows: int = 1 << 16) -> Iterator[pa.RecordBatch]:
        """Stored rejects: file, line, reason, raw; at most `rows` at a time."""
        for entry in self.artifact.files(REJECTED.folder):
            if entry.rows:
                yield from self.artifact.batches(entry.path, rows)
