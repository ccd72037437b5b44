"""Format of Qdrant: a local collection, in the folder that `QdrantClient(path=...)` opens."""

from __future__ import annotations

import contextlib
import warnings
from pathlib import Path
from typing import Any

from embedmill.pipeline.formats.vector_table import VectorTable

__all__ = ["qdrant"]

_POINTS = 1024  # of a batch


def qdrant(table: VectorTable, folder: Path) -> None:
    """Write the collection SIDE: points are numbered by row and have their ids in the payload.

    The client's local mode is for trials and tests: it keeps a collection in memory and compares
    every point, by inner product. `client.migrate(...)` copies the points to a server.
    """
    from qdrant_client import QdrantClient, models

    with warnings.catch_warnings():
        # Beyond 20,000 points it recommends a server.
        warnings.filterwarnings("ignore", message="Local mode is not recommended")
        client = QdrantClient(path=str(folder))
        try:
            params = models.VectorParams(size=table.dim, distance=models.Distance.DOT)
            client.create_collection(table.side, vectors_config=params)
            _sync_once(client, table.side)
            for block in (p for whole in table.blocks() for p in whole.pieces(_POINTS * table.dim)):
                records = table.payload.records(block.ids)
                pairs = zip(block.ids.to_pylist(), block.count_N.tolist(), records, strict=True)
                points = models.Batch(
                    ids=block.row_N.tolist(),
                    vectors=block.vector_ND.tolist(),
                    payloads=[{"id": raw, "count": count, **more} for raw, count, more in pairs],
                )
                client.upsert(table.side, points)
        finally:
            client.close()


def _sync_once(client: Any, side: str) -> None:
    """Switch off the client's fsync after every point, which takes 3 ms on a disk.

    The caller syncs all files once. This needs private attributes of the client; where a later
    version renames them nothing changes but the time it takes.
    """
    with contextlib.suppress(AttributeError, KeyError):
        database = client._client.collections[side].storage.storage
        database.execute("PRAGMA synchronous = OFF")
        database.execute("PRAGMA journal_mode = MEMORY")
