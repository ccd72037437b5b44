"""The `index` artifact: files of the index, what it says of itself, the items in it."""

from __future__ import annotations

import functools
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from embedmill.pipeline.errors import ContractError
from embedmill.pipeline.store.artifact import Artifact
from embedmill.pipeline.store.cache import checked
from embedmill.pipeline.views.row_files import Rows
from embedmill.schemas.index import (
    BASE_ROWS_FILE,
    BASE_VECTORS_FILE,
    DELTA_FILE,
    IDS_FILE,
    INDEX_FILE,
    LATENCY,
    RECALL,
    SPEC,
    IndexLatency,
    IndexRecall,
    IndexSpec,
    ShardSpec,
)

__all__ = ["StoredIndex"]


@dataclass(frozen=True)
class StoredIndex:
    """A finished index. N items of it, S slots of its base."""

    artifact: Artifact

    @functools.cached_property
    def spec(self) -> IndexSpec:
        """Its kind, parameters and size."""
        return self.artifact.read_json(SPEC)

    @functools.cached_property
    def recall(self) -> IndexRecall:
        """Its recall as measured."""
        return self.artifact.read_json(RECALL)

    @functools.cached_property
    def latency(self) -> IndexLatency | None:
        """Its latency as measured, or None where that was not stored."""
        return self.artifact.read_json(LATENCY) if self.artifact.has(LATENCY.path) else None

    @property
    def is_sharded(self) -> bool:
        """Whether it has shards instead of one file."""
        return not self.artifact.has(INDEX_FILE)

    @property
    def url(self) -> str:
        """The file of the index, or of its base, for errors."""
        return self.artifact.url(INDEX_FILE)

    def local_file(self, *, again: bool = False) -> Path:
        """The file of the index, or of its base, on a local disk; see `store.cache.checked`."""
        return checked(self.artifact, INDEX_FILE, again=again)

    def local_shard(self, shard: ShardSpec, *, again: bool = False) -> Path:
        """The file of a shard on a local disk; see `store.cache.checked`."""
        return checked(self.artifact, shard.path, again=again)

    def read(self) -> bytes:
        """The bytes of the index, or of its base, checked against their sha256."""
        return self.artifact.read(INDEX_FILE)

    def read_delta(self) -> bytes:
        """The bytes of the delta of an incremental index, checked against their sha256."""
        return self.artifact.read(DELTA_FILE)

    def rows(self) -> Rows:
        """The row of the item at each position, rising, int64 [N].

        Raises:
            ContractError: other items are named than the spec says.
        """
        return np.asarray(self._column("row").to_numpy(), np.int64)

    def ids(self) -> pa.ChunkedArray:
        """The raw id of the item at each position, string [N]; raises as `rows`."""
        return self._column("id")

    def base_rows(self) -> Rows:
        """The row of each slot of the base, -1 for tombstones, int64 [S].

        An index that is not incremental is its own base, without tombstones.
        """
        path = BASE_ROWS_FILE if self.artifact.has(BASE_ROWS_FILE) else IDS_FILE
        column = self.artifact.read_table(path, ["row"])["row"]
        return np.asarray(column.fill_null(-1).to_numpy(), np.int64)

    def base_vectors(self) -> NDArray[np.float32] | None:
        """The vectors that the slots of the base were built with, float32 [S, D].

        None where the base has the vectors of this run's items, or they were not kept.
        """
        if not self.artifact.has(BASE_VECTORS_FILE):
            return None
        data = io.BytesIO(self.artifact.read(BASE_VECTORS_FILE))
        found: NDArray[np.float32] = np.load(data, allow_pickle=False)
        return found

    def _column(self, name: str) -> pa.ChunkedArray:
        column = self.artifact.read_table(IDS_FILE, [name])[name]
        if len(column) != self.spec.items:
            raise ContractError(
                f"names {len(column):,} items, the index holds {self.spec.items:,}",
                where=self.artifact.url(IDS_FILE),
            )
        return column
