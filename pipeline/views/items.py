"""Item metadata: titles and categories, where the log has any."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from embedmill.pipeline.store.artifact import Artifact
from embedmill.schemas.events import ITEMS, ITEMS_META

__all__ = ["ItemMetadata"]

_BATCH_ROWS = 1 << 16


@dataclass(frozen=True)
class ItemMetadata:
    """The item metadata of an `events` artifact; it may have none, and is then empty."""

    events: Artifact | None

    @property
    def exists(self) -> bool:
        """Whether the config named any metadata."""
        return self.events is not None and self.events.has(ITEMS)

    @property
    def url(self) -> str:
        """The file, for errors; of the artifact where there is none."""
        if self.events is None:
            return ""
        return self.events.url(ITEMS) if self.exists else self.events.storage.root

    @property
    def sha256(self) -> str:
        """Of the file; "" where there is none."""
        return self.events.files(ITEMS)[0].sha256 if self.events and self.exists else ""

    def table(self, columns: Sequence[str] | None = None) -> pa.Table:
        """All metadata: item, title, categories, sorted by item."""
        if self.events is None or not self.exists:
            empty = ITEMS_META.empty_table()
            return empty if columns is None else empty.select(list(columns))
        return self.events.read_table(ITEMS, None if columns is None else list(columns))

    def batches(self, rows: int = _BATCH_ROWS) -> Iterator[pa.RecordBatch]:
        """The same, at most `rows` at a time."""
        if self.events is not None and self.exists:
            yield from self.events.batches(ITEMS, rows)

    def describe(self, ids: Iterable[str]) -> dict[str, tuple[str, list[str]]]:
        """Raw id → title and categories, of those of `ids` that have any."""
        wanted = pa.array(sorted(set(ids)), pa.string())
        described: dict[str, tuple[str, list[str]]] = {}
        for batch in self.batches():
            for row in batch.filter(pc.is_in(batch.column("item"), wanted)).to_pylist():
                described.setdefault(row["item"], (row["title"], row["categories"] or []))
        return described

    def titles(self, ids: Iterable[str]) -> dict[str, str]:
        """Raw id → title, of those of `ids` that have one."""
        return {raw: title for raw, (title, _) in self.describe(ids).items()}

    def ids_titled(self, titles: Iterable[str]) -> dict[str, list[str]]:
        """Title as given → ids of the items that have it, by rising id; case does not matter."""
        titles = list(titles)
        ids: dict[str, list[str]] = {title.casefold(): [] for title in titles}
        for batch in self.batches():
            columns = batch.select(["item", "title"]).to_pydict()
            for raw, title in zip(columns["item"], columns["title"], strict=True):
                if title.casefold() in ids:
                    ids[title.casefold()].append(raw)
        return {title: ids[title.casefold()] for title in titles}
