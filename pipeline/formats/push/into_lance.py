"""LanceDB: a table of aliases, which is replaced in one commit; LanceDB has no aliases itself."""

from __future__ import annotations

import os
from collections.abc import Mapping

import pyarrow as pa

from embedmill.pipeline.formats.push.vector_store import Address, PushTable

__all__ = ["LanceStore"]

os.environ.setdefault("LANCEDB_LOG", "error")  # it would warn of each new table
_ALIASES = "embedmill_aliases"
_SCHEMA = pa.schema([pa.field("alias", pa.string()), pa.field("table", pa.string())])


class LanceStore:
    """`lance:///FOLDER`, or `lance+s3://BUCKET/PREFIX` with AWS' variables. See `VectorStore`."""

    def __init__(self, address: Address) -> None:
        import lancedb

        self._db = lancedb.connect(address.path or address.url)

    def count(self, name: str) -> int | None:
        """Rows; a table is there once all are."""
        try:
            return int(self._db.open_table(name).count_rows())
        except (ValueError, FileNotFoundError):  # none, or one that was never committed
            return None

    def load(self, table: PushTable) -> None:
        """In one commit."""
        reader = pa.RecordBatchReader.from_batches(table.schema, table.batches())
        self._db.create_table(table.name, data=reader, schema=table.schema, mode="overwrite")

    def current(self, aliases: list[str]) -> dict[str, str]:
        """What the table of aliases says."""
        return {alias: table for alias, table in self._all().items() if alias in aliases}

    def switch(self, aliases: Mapping[str, str]) -> None:
        """Replace the table of aliases."""
        both = {**self._all(), **aliases}
        rows = pa.table({"alias": list(both), "table": list(both.values())}, schema=_SCHEMA)
        self._db.create_table(_ALIASES, data=rows, schema=_SCHEMA, mode="overwrite")

    def tables(self, prefix: str) -> list[str]:
        """Their names."""
        return [name for name in self._names() if name.startswith(prefix)]

    def drop(self, name: str) -> None:
        """Remove a table."""
        self._db.drop_table(name)

    def close(self) -> None:
        """Nothing is open."""

    def _all(self) -> dict[str, str]:
        if _ALIASES not in self._names():
            return {}
        rows = self._db.open_table(_ALIASES).to_arrow().to_pylist()
        return {row["alias"]: row["table"] for row in rows}

    def _names(self) -> list[str]:
        names, token = list[str](), None
        while True:
            page = self._db.list_tables(page_token=token)
            names += page.tables
            token = page.page_token
            if not token:
                return names
