"""Parquet files that hold contiguous ranges of rows, read by row.

Legend: N rows of a file, R rows asked for, F files.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from embedmill.pipeline.store.artifact import Artifact
from embedmill.pipeline.views.number_columns import numbers
from embedmill.schemas.manifest import FileEntry

__all__ = ["RowFiles", "Rows"]

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class RowFiles:
    """The files below a folder of an artifact: file n begins at the row where file n - 1 ends.

    Where each begins is known from the manifest; nothing is opened for it. Picklable.
    """

    artifact: Artifact
    folder: str

    @functools.cached_property
    def entries(self) -> tuple[FileEntry, ...]:
        """Entries of the files, rows rising."""
        return tuple(self.artifact.files(self.folder))

    @functools.cached_property
    def starts(self) -> Rows:
        """The first row of each file, and the number of rows after them, int64 [F + 1]."""
        return np.cumsum([0, *(entry.rows or 0 for entry in self.entries)], dtype=np.int64)

    @property
    def count(self) -> int:
        """Rows of all files."""
        return int(self.starts[-1])

    def __len__(self) -> int:
        """Number of files."""
        return len(self.entries)

    def file_of(self, rows: Rows) -> Rows:
        """The number of the file that holds each row, int64 [R]."""
        return np.asarray(np.searchsorted(self.starts, rows, side="right") - 1, np.int64)

    def read(self, number: int, columns: Sequence[str] | None = None) -> pa.Table:
        """One file.

        Raises:
            CorruptArtifactError: it is missing or cannot be parsed.
        """
        return self.artifact.read_table(
            self.entries[number].path, None if columns is None else list(columns)
        )

    def column(self, name: str) -> NDArray[Any]:
        """A column of numbers over all rows."""
        parts = [numbers(self.read(number, [name])[name]) for number in range(len(self))]
        return np.concatenate(parts) if parts else np.empty(0)

    def grouped(self, rows: Rows) -> Iterator[tuple[int, Rows, Rows]]:
        """Rows by the file that holds them.

        Yields:
            the number of a file, which of `rows` it holds (places in `rows`), and where these are
            in the file.
        """
        number_R = self.file_of(rows)
        for number in np.unique(number_R).tolist():
            place = np.flatnonzero(number_R == number)
            yield number, place, rows[place] - self.starts[number]
