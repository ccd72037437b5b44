"""The vectors that a format is given to write.

Legend: N vectors of a block, D coordinates as exported.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from embedmill.pipeline.formats.payload import Payload, payload_of
from embedmill.pipeline.store.artifact import Artifact
from embedmill.pipeline.views.vectors import Vectors

__all__ = ["DTYPES", "IDS", "NumberBlock", "VectorTable", "convert", "ids_writer", "int8_scale"]

Numbers = NDArray[Any]

DTYPES: dict[str, np.dtype[Any]] = {
    "float32": np.dtype("<f4"),
    "float16": np.dtype("<f2"),
    "int8": np.dtype("i1"),
}
# Of the file of ids beside a file that holds numbers alone, in the order of its vectors.
IDS = pa.schema(
    [
        pa.field("row", pa.int64(), nullable=False),
        pa.field("id", pa.string(), nullable=False),
        pa.field("count", pa.int64(), nullable=False),
    ]
)
_GREATEST = 127  # of an int8


@dataclass(frozen=True)
class NumberBlock:
    """Some vectors: rows int64 [N], raw ids, events of each [N], numbers [N, D]."""

    row_N: NDArray[np.int64]
    ids: pa.Array
    count_N: NDArray[np.int64]
    vector_ND: Numbers

    def pieces(self, numbers: int) -> Iterator[NumberBlock]:
        """The block in smaller ones of about so many numbers."""
        step = max(1, numbers // max(1, self.vector_ND.shape[1]))
        for start in range(0, len(self.row_N), step):
            at = slice(start, start + step)
            yield NumberBlock(self.row_N[at], self.ids[at], self.count_N[at], self.vector_ND[at])


@dataclass(frozen=True)
class VectorTable:
    """The live vectors of one side in one number type, a block at a time.

    An int8 is a coordinate divided by `scale` and rounded. The scale is the same for all
    coordinates of a side, so that inner products of int8 rank as those of the coordinates.
    """

    export: Artifact
    side: str
    dtype: str
    scale: float
    events: Artifact | None = None

    @property
    def dim(self) -> int:
        """Coordinates of a vector."""
        return self._vectors.dim

    @property
    def count(self) -> int:
        """Number of vectors: those of live rows."""
        return sum(self.live_by_file)

    @property
    def left_out(self) -> int:
        """Number of rows that are not live: retired or shared ones."""
        return self._vectors.count - self.count

    def blocks(self) -> Iterator[NumberBlock]:
        """All vectors, rows rising."""
        for file in range(len(self._vectors.files)):
            yield self.block(file)

    def block(self, file: int) -> NumberBlock:
        """The vectors of one file of the artifact."""
        block = self._vectors.live_block(file)
        numbers_ND = convert(block.vector_ND, self.dtype, self.scale)
        return NumberBlock(block.row_N, block.ids, block.count_N, numbers_ND)

    @functools.cached_property
    def live_by_file(self) -> list[int]:
        """How many vectors each file of the artifact has."""
        starts = self._vectors.files.starts
        live = np.concatenate(([0], np.cumsum(self._vectors.live(), dtype=np.int64)))
        return [int(number) for number in np.diff(live[starts])]

    @functools.cached_property
    def payload(self) -> Payload:
        """What goes with the vectors: titles and categories of items, where the log has any."""
        return payload_of(self.events, self.side)

    @functools.cached_property
    def _vectors(self) -> Vectors:
        return Vectors.of(self.export, self.side)


def convert(vector_ND: NDArray[np.float32], dtype: str, scale: float) -> Numbers:
    """Vectors in a number type [N, D].

    Args:
        vector_ND: float32 vectors.
        dtype: a name in DTYPES.
        scale: what a unit of an int8 stands for; other types ignore it.
    """
    if dtype == "int8":
        whole_ND: Numbers = np.clip(np.rint(vector_ND / scale), -_GREATEST, _GREATEST)
        return whole_ND.astype(np.int8)
    return vector_ND.astype(DTYPES[dtype])


def int8_scale(vectors: Vectors) -> float:
    """What a unit of an int8 stands for: the greatest coordinate of the side becomes 127.

    A smaller unit would round less and clip the greatest coordinates. These decide what ranks
    first: recall was measured to be worse.
    """
    greatest = max((float(np.abs(b).max(initial=0.0)) for _, b in vectors.blocks()), default=0.0)
    return greatest / _GREATEST or 1.0


def ids_writer(path: Path) -> pq.ParquetWriter:
    """A writer of a Parquet file of `IDS`."""
    return pq.ParquetWriter(path, IDS, compression="zstd", write_page_checksum=True)
