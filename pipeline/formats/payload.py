"""What goes with an item's vector into other tools, so that they can filter: title, categories.

Legend: N items of a block.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from embedmill.pipeline.store.artifact import Artifact
from embedmill.pipeline.views.items import ItemMetadata

__all__ = ["FIELDS", "Payload", "payload_of"]

_CATEGORIES = pa.list_(pa.field("item", pa.string(), nullable=False))
# Columns of a table that has a payload, after those that all have. They may be null, as what is
# inserted into a table later on, such as a delta, has none; an export writes no null.
FIELDS = (pa.field("title", pa.string()), pa.field("categories", _CATEGORIES))


class Payload:
    """Titles and categories by raw id, in memory; none of users, or where the log names none."""

    def __init__(self, events: Artifact | None, side: str) -> None:
        metadata = ItemMetadata(events)
        self.exists = side == "items" and metadata.exists
        table = metadata.table() if self.exists else None
        self._columns: dict[str, pa.Array] = {}
        if table is not None:
            self._columns = {name: _one(table[name]) for name in ("title", "categories")}
        # Hashed once: `pc.index_in` would hash all items again for each block.
        self._items = pd.Index(table["item"].to_pylist() if table is not None else [], dtype=object)

    @property
    def fields(self) -> tuple[pa.Field, ...]:
        """Those of `columns`."""
        return FIELDS if self.exists else ()

    def columns(self, ids: pa.Array) -> list[pa.Array]:
        """Titles, "" where there is none, and lists of categories, of ids [N]; [] of no payload."""
        if not self.exists:
            return []
        found_N = self._items.get_indexer(pd.Index(ids.to_pylist(), dtype=object))
        position = pa.array(found_N, mask=found_N < 0)
        title = pc.fill_null(self._columns["title"].take(position), "")
        found = self._columns["categories"].take(position)
        lists = [[text for text in texts or () if text] for texts in found.to_pylist()]
        return [title.cast(pa.string()), pa.array(lists, _CATEGORIES)]

    def records(self, ids: pa.Array) -> Iterator[dict[str, Any]]:
        """The same as a dict for each id; empty ones of no payload."""
        columns = self.columns(ids)
        if not columns:
            yield from ({} for _ in range(len(ids)))
            return
        for title, categories in zip(*(column.to_pylist() for column in columns), strict=True):
            yield {"title": title, "categories": categories}


_LATEST: dict[str, Payload] = {}  # by the sha256 of the items' metadata


def payload_of(events: Artifact | None, side: str) -> Payload:
    """The payload of a side. The latest is kept in the process: many tasks ask for the same one."""
    sha256 = ItemMetadata(events).sha256 if side == "items" else ""
    if not sha256:
        return Payload(None, side)
    if sha256 not in _LATEST:
        _LATEST.clear()
        _LATEST[sha256] = Payload(events, side)
    return _LATEST[sha256]


def _one(column: pa.ChunkedArray) -> pa.Array:
    return pa.concat_arrays(column.chunks) if column.chunks else pa.array([], column.type)
