"""A local collection of Qdrant, in the folder that `QdrantClient(path=...)` opens."""

from __future__ import annotations

import contextlib
import warnings
from pathlib import Path
from typing import Any

from embedmill.pipeline.formats.contract import Table

__all__ = ["qdrant"]

_POINTS = 1024


def qdrant(table: Table, folder: Path) -> None:
    """Collection SIDE, compared by inner product; points are rows, ids are in their payload.

    The local mode of the client is for tries and tests: it holds a collection in memory and
    compares every point. A server takes the same points by `client.migrate(...)`.
    """
    from qdrant_client import QdrantClient, models

    with warnings.catch_warnings():
        # Beyond 20,000 points it recommends a server.
        warnings.filterwarnings("ignore", message="Local mode is not recommended")
        client = QdrantClient(path=str(folder))
        try:
            params = models.VectorParams(size=table.dim, distance=models.Distance.DOT)
            client.create_collection(table.side, vectors_config=params)
            _unhurried(client, table.side)
            for block in (p for whole in table.blocks() for p in whole.pieces(_POINTS * table.dim)):
                pairs = zip(block.ids.to_pylist(), block.count_N.tolist(), strict=True)
                points = models.Batch(
                    ids=block.row_N.tolist(),
                    vectors=block.vector_ND.tolist(),
                    payloads=[{"id": raw, "count": count} for raw, count in pairs],
                )
                client.upsert(table.side, points)
        finally:
            client.close()


def _unhurried(client: Any, side: str) -> None:
    """Leave it to the caller to bring the file to the disk, once: the client does for every point.

    That is 3 ms each on a disk. The client's own parts may be named otherwise some day; then it
    takes longer.
    """
    with contextlib.suppress(AttributeError, KeyError):
        database = client._client.collections[side].storage.storage
        database.execute("PRAGMA synchronous = OFF")
        database.execute("PRAGMA journal_mode = MEMORY")
