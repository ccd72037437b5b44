"""Milvus: collections with aliases; it switches one alias at a time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pymilvus import DataType, MilvusClient

from embedmill.pipeline.formats.bulk_imports import MILVUS_LIMITS
from embedmill.pipeline.formats.push.vector_store import Address, PushTable, secret

__all__ = ["MilvusStore"]


class MilvusStore:
    """MILVUS_TOKEN has the token of a server; a path is a file of Milvus Lite.

    See `VectorStore`.
    """

    def __init__(self, address: Address) -> None:
        self._local = bool(address.path)
        given = {} if self._local else {"token": secret("MILVUS_TOKEN") or ""}
        self._client = MilvusClient(address.path or address.url, **given)

    def count(self, name: str) -> int | None:
        """Entities, counted by a query after all writes."""
        if not self._client.has_collection(name):
            return None
        self._client.load_collection(name)
        found = self._client.query(
            name, filter="", output_fields=["count(*)"], consistency_level="Strong"
        )
        return int(found[0]["count(*)"])

    def load(self, table: PushTable) -> None:
        """The primary key is the row."""
        if self._client.has_collection(table.name):
            self._client.drop_collection(table.name)
        length = MILVUS_LIMITS["max_length"]
        schema = self._client.create_schema()
        schema.add_field("row", DataType.INT64, is_primary=True)
        schema.add_field("id", DataType.VARCHAR, max_length=length)
        schema.add_field("count", DataType.INT64)
        if table.has_payload:
            schema.add_field("title", DataType.VARCHAR, max_length=length)
            element = {"element_type": DataType.VARCHAR, **MILVUS_LIMITS}
            schema.add_field("categories", DataType.ARRAY, **element)
        schema.add_field("vector", DataType.FLOAT_VECTOR, dim=table.dim)
        index = self._client.prepare_index_params()
        kind = "FLAT" if self._local else "HNSW"
        index.add_index("vector", index_type=kind, metric_type="IP")
        self._client.create_collection(table.name, schema=schema, index_params=index)
        for records in table.records():
            self._client.insert(table.name, records)
        self._client.flush(table.name)

    def current(self, aliases: list[str]) -> dict[str, str]:
        """Alias → collection."""
        found = {}
        for alias in aliases:
            said: Any = self._describe(alias)
            if said:
                found[alias] = str(said["collection_name"])
        return found

    def switch(self, aliases: Mapping[str, str]) -> None:
        """One after another."""
        known = self.current(list(aliases))
        for alias, table in aliases.items():
            change = self._client.alter_alias if alias in known else self._client.create_alias
            change(collection_name=table, alias=alias)

    def tables(self, prefix: str) -> list[str]:
        """Collections."""
        return [name for name in self._client.list_collections() if name.startswith(prefix)]

    def drop(self, name: str) -> None:
        """Remove a collection."""
        self._client.drop_collection(name)

    def close(self) -> None:
        """End the connection."""
        self._client.close()

    def _describe(self, alias: str) -> Any:
        from pymilvus.exceptions import MilvusException

        try:
            return self._client.describe_alias(alias=alias)
        except MilvusException as error:
            if "not found" in str(error).lower() or "not exist" in str(error).lower():
                return None
            raise
