"""What every format is given to write.

Legend: N vectors of a block, D coordinates as exported.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from embedmill.pipeline.store.artifact import Artifact
from embedmill.pipeline.views.vectors import RANGE, Vectors, part_path, spec_of, to_matrix

__all__ = ["DTYPES", "IDS", "Block", "Format", "Table", "write_ids"]

Numbers = NDArray[Any]

DTYPES: dict[str, np.dtype[Any]] = {
    "float32": np.dtype("<f4"),
    "float16": np.dtype("<f2"),
    "int8": np.dtype("i1"),
}
# Beside files that hold numbers alone, in their order.
IDS = pa.schema(
    [
        pa.field("row", pa.int64(), nullable=False),
        pa.field("id", pa.string(), nullable=False),
        pa.field("count", pa.int64(), nullable=False),
    ]
)
_GREATEST = 127


@dataclass(frozen=True)
class Block:
    """Some vectors: rows int64 [N], raw ids, events of each, numbers [N, D] in the table's type."""

    row_N: NDArray[np.int64]
    ids: pa.Array
    count_N: NDArray[np.int64]
    vector_ND: Numbers

    def pieces(self, numbers: int) -> Iterator[Block]:
        """The block in pieces of about so many numbers."""
        step = max(1, numbers // max(1, self.vector_ND.shape[1]))
        for start in range(0, len(self.row_N), step):
            at = slice(start, start + step)
            yield Block(self.row_N[at], self.ids[at], self.count_N[at], self.vector_ND[at])


@dataclass(frozen=True)
class Table:
    """The live vectors of one side in one number type, a block at a time.

    An int8 is a coordinate over `scale`, the same for all coordinates of a side, so that inner
    products of int8 rank as those of what they stand for.
    """

    export: Artifact
    side: str
    dtype: str
    scale: float
    events: Artifact | None = None

    @functools.cached_property
    def dim(self) -> int:
        """Coordinates of a vector."""
        return spec_of(self.export).dim

    @functools.cached_property
    def count(self) -> int:
        """Vectors, those of ids in use."""
        return int(self._vectors.live().sum())

    @property
    def left_out(self) -> int:
        """Rows without an id in use: retired or shared."""
        return self._vectors.count - self.count

    def blocks(self) -> Iterator[Block]:
        """All vectors, rows rising."""
        for number in range(-(-self._vectors.count // RANGE)):
            path = part_path(self.side, number)
            table = self.export.read_table(path, ["row", "id", "count", "live", "vector"])
            table = table.filter(table["live"])
            vector_ND = in_type(to_matrix(table["vector"], self.dim), self.dtype, self.scale)
            yield Block(
                table["row"].to_numpy(),
                table["id"].combine_chunks(),
                table["count"].to_numpy(),
                vector_ND,
            )

    @functools.cached_property
    def _vectors(self) -> Vectors:
        return Vectors.of(self.export, self.side)


@dataclass(frozen=True)
class Format:
    """How a table is written below a folder, and what its readers must know.

    `dtypes` are the number types that it has; `ids` says where raw ids are and how they are
    escaped; `package` must be installed, by the extra of that name.
    """

    write: Callable[[Table, Path], None]
    dtypes: tuple[str, ...]
    ids: str
    package: str = ""


def in_type(vector_ND: NDArray[np.float32], dtype: str, scale: float) -> Numbers:
    """Vectors as numbers of the type [N, D]."""
    if dtype == "int8":
        whole_ND: Numbers = np.clip(np.rint(vector_ND / scale), -_GREATEST, _GREATEST)
        return whole_ND.astype(np.int8)
    return vector_ND.astype(DTYPES[dtype])


def scale_of(vectors: Vectors, dtype: str) -> float:
    """What a unit of an int8 stands for: the greatest coordinate of the side is 127.

    A smaller unit rounds less and cuts off the long coordinates, which decide what ranks first:
    it was measured to be worse.
    """
    if dtype != "int8":
        return 1.0
    greatest = max((float(np.abs(b).max(initial=0.0)) for _, b in vectors.blocks()), default=0.0)
    return greatest / _GREATEST or 1.0


def write_ids(path: Path) -> pq.ParquetWriter:
    """A writer of `IDS`."""
    return pq.ParquetWriter(path, IDS, compression="zstd", write_page_checksum=True)
