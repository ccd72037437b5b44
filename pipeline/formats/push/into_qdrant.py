"""Qdrant: collections with aliases that are switched in one request."""

from __future__ import annotations

import warnings
from collections.abc import Mapping

from qdrant_client import QdrantClient, models

from embedmill.pipeline.formats.push.vector_store import Address, PushTable, secret

__all__ = ["QdrantStore"]


class QdrantStore:
    """QDRANT_API_KEY has the key of a server. See `VectorStore`."""

    def __init__(self, address: Address) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a key without TLS
            if address.path:
                self._client = QdrantClient(path=address.path)
            else:
                self._client = QdrantClient(url=address.url, api_key=secret("QDRANT_API_KEY"))

    def count(self, name: str) -> int | None:
        """Points; their numbers are rows, so that none is counted twice."""
        if not self._client.collection_exists(name):
            return None
        return int(self._client.count(name, exact=True).count)

    def load(self, table: PushTable) -> None:
        """Points are numbered by row, with the rest as payload."""
        if self._client.collection_exists(table.name):
            self._client.delete_collection(table.name)
        params = models.VectorParams(size=table.dim, distance=models.Distance.DOT)
        self._client.create_collection(table.name, vectors_config=params)
        with warnings.catch_warnings():
            # The local mode has no indices, and recommends a server for many points.
            warnings.simplefilter("ignore")
            keyword = models.PayloadSchemaType.KEYWORD
            for field in ("id", "categories") if table.has_payload else ("id",):
                self._client.create_payload_index(table.name, field, keyword)
            for records in table.records():
                ids = [record.pop("row") for record in records]
                vectors = [record.pop("vector") for record in records]
                points = models.Batch(ids=ids, vectors=vectors, payloads=records)
                self._client.upsert(table.name, points, wait=True)

    def current(self, aliases: list[str]) -> dict[str, str]:
        """Alias → collection."""
        found = self._client.get_aliases().aliases
        return {one.alias_name: one.collection_name for one in found if one.alias_name in aliases}

    def switch(self, aliases: Mapping[str, str]) -> None:
        """All aliases in one request."""
        actions: list[models.AliasOperations] = []
        for alias in self.current(list(aliases)):
            delete = models.DeleteAlias(alias_name=alias)
            actions.append(models.DeleteAliasOperation(delete_alias=delete))
        for alias, table in aliases.items():
            create = models.CreateAlias(collection_name=table, alias_name=alias)
            actions.append(models.CreateAliasOperation(create_alias=create))
        self._client.update_collection_aliases(actions)

    def tables(self, prefix: str) -> list[str]:
        """Collections."""
        names = [one.name for one in self._client.get_collections().collections]
        return [name for name in names if name.startswith(prefix)]

    def drop(self, name: str) -> None:
        """Remove a collection."""
        self._client.delete_collection(name)

    def close(self) -> None:
        """End the connection."""
        self._client.close()
