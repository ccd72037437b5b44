"""Tables of ids in scratch files below the stage's folder, between two steps of stage `vocab`."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession

from embedmill.pipeline.prepare.engine.parquet_frame import read_parquet
from embedmill.pipeline.store.storage import Storage
from embedmill.schemas.manifest import FileEntry

__all__ = ["ScratchFiles", "scratch_path"]


def scratch_path(folder: str, table: str, bucket: int) -> str:
    """Path of the file with the rows of a table that are in one hash bucket."""
    return f"{folder}/{table}-{bucket:05d}.parquet"


@dataclass(frozen=True)
class ScratchFiles:
    """Scratch files that tasks have written, at paths of `scratch_path`.

    Attributes:
        storage: the stage's folder.
        files: their entries, of all tables.
    """

    storage: Storage
    files: tuple[FileEntry, ...]

    def read(self, session: SparkSession, table: str, schema: pa.Schema) -> DataFrame:
        """All rows of a table; it may have no file."""
        files = [entry for entry in self.files if f"/{table}-" in entry.path]
        return read_parquet(session, self.storage, files, schema)

    def remove(self) -> None:
        """Remove the files of all tables."""
        for entry in self.files:
            self.storage.remove(entry.path)
