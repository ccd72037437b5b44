"""Exported vectors: by file, by row, live ones alone.

Legend: N vectors of a block, R rows or positions asked for, D coordinates as exported.
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
from embedmill.pipeline.store.cache import checked
from embedmill.pipeline.views.number_columns import numbers
from embedmill.pipeline.views.row_files import RowFiles, Rows
from embedmill.pipeline.views.vocabulary import Vocabulary
from embedmill.schemas.export import FILES, SPEC, VectorSpec, matrix_file
from embedmill.schemas.manifest import FileEntry, digest

__all__ = [
    "LiveFile",
    "LiveVectors",
    "VectorBlock",
    "Vectors",
    "new_space",
    "parquet_files",
    "space_of",
    "spec_of",
    "to_matrix",
]

Floats = NDArray[np.float32]


def spec_of(export: Artifact) -> VectorSpec:
    """What the vectors of an `export` artifact are."""
    return export.read_json(SPEC)


def parquet_files(export: Artifact, side: str) -> list[FileEntry]:
    """Entries of the files of a side, rows rising."""
    return export.files(FILES[side].folder)


def new_space(train: Artifact) -> str:
    """The id of the space that begins with a training: its vectors before any alignment."""
    return digest(["space", train.manifest.content])[:16]


def space_of(export: Artifact) -> str:
    """The id of the space of exported vectors; two exports with one id may be compared."""
    space = spec_of(export).space
    if space is not None:
        return space.id
    (train,) = (entry.content for entry in export.manifest.inputs if entry.stage == "train")
    return digest(["space", train])[:16]


def to_matrix(column: pa.ChunkedArray, dim: int) -> Floats:
    """A column of fixed-size lists as float32 [N, dim], a copy that can be written to."""
    flat = [chunk.flatten().to_numpy(zero_copy_only=False) for chunk in column.chunks]
    joined = np.concatenate(flat) if flat else np.empty(0, np.float32)
    return np.array(joined, dtype=np.float32).reshape(-1, dim)


@dataclass(frozen=True)
class VectorBlock:
    """Some rows [N]: their ids, events, vectors float32 [N, D], biases [N] or None.

    D is 0 where vectors were not asked for.
    """

    row_N: Rows
    ids: pa.Array
    count_N: Rows
    vector_ND: Floats
    bias_N: Floats | None = None

    def take(self, places: Sequence[int] | Rows) -> VectorBlock:
        """The rows at some places of this block, in that order."""
        at = np.asarray(places, np.int64)
        bias_N = None if self.bias_N is None else self.bias_N[at]
        ids = self.ids.take(pa.array(at))
        return VectorBlock(self.row_N[at], ids, self.count_N[at], self.vector_ND[at], bias_N)

    @staticmethod
    def concatenated(blocks: Sequence[VectorBlock]) -> VectorBlock:
        """Blocks, at least one, as one."""
        ids = pa.concat_arrays([block.ids for block in blocks])
        row_N, count_N, vector_ND = (
            np.concatenate([getattr(block, name) for block in blocks])
            for name in ("row_N", "count_N", "vector_ND")
        )
        biases = [block.bias_N for block in blocks if block.bias_N is not None]
        bias_N = np.concatenate(biases) if biases else None
        return VectorBlock(row_N, ids, count_N, vector_ND, bias_N)


@dataclass(frozen=True)
class Vectors:
    """The exported vectors of one side, a file at a time.

    `side` is "users" or "items"; `count` and `dim` are N and D of the whole table. Picklable.
    """

    export: Artifact
    side: str
    count: int
    dim: int

    @staticmethod
    def of(export: Artifact, side: str) -> Vectors:
        """The vectors of `side` of an `export` artifact."""
        spec = spec_of(export)
        return Vectors(export, side, spec.count(side), spec.dim)

    @functools.cached_property
    def files(self) -> RowFiles:
        """The files, by row."""
        return RowFiles(self.export, FILES[self.side].folder)

    @property
    def vocabulary(self) -> Vocabulary:
        """The ids of the rows."""
        return Vocabulary(self.files, self.side)

    def blocks(self) -> Iterator[tuple[int, Floats]]:
        """(first row, float32 [N, D]) of every file, rows rising."""
        for number in range(len(self.files)):
            yield int(self.files.starts[number]), self._matrix(number)

    def load(self) -> Floats:
        """All vectors, float32 [count, D]."""
        whole = np.empty((self.count, self.dim), np.float32)
        for first, block_ND in self.blocks():
            whole[first : first + len(block_ND)] = block_ND
        return whole

    def table(self) -> pa.Table:
        """All rows with all columns (schema `schemas.export.embeddings`), in memory."""
        return self.export.read_tables(FILES[self.side].folder).combine_chunks()

    def gather(self, rows: Rows) -> Floats:
        """Vectors of some rows in their order, float32 [R, D]; reads each file once."""
        vector_RD = np.empty((len(rows), self.dim), np.float32)
        for number, place, within in self.files.grouped(rows):
            vector_RD[place] = self._matrix(number)[within]
        return vector_RD

    def matrix(self) -> Floats | None:
        """All vectors as a read-only memory map, [count, D], its bytes checked.

        None where the run exports no NumPy arrays, or they are not on a local disk.
        """
        path = matrix_file(self.side)
        if not (self.export.has(path) and self.export.storage.is_local):
            return None
        mapped: Floats = np.load(checked(self.export, path), mmap_mode="r", allow_pickle=False)
        return mapped

    def column(self, name: str) -> NDArray[Any]:
        """A column of numbers ("count", "bias", "live") over all rows."""
        return self.files.column(name)

    def live(self) -> NDArray[np.bool_]:
        """Which rows have an id and events, bool [count]: the others are no candidates."""
        return self.vocabulary.live()

    def live_blocks(
        self, rows: int = 0, *, vectors: bool = True, bias: bool = False
    ) -> Iterator[VectorBlock]:
        """All live rows in order.

        Args:
            rows: read at most so many rows at once; 0 for a whole file.
            vectors: read vectors; their D is 0 otherwise.
            bias: read biases too, of a model that has any.
        """
        columns = ["row", "id", "count", "live", *["vector"] * vectors, *["bias"] * bias]
        for number in range(len(self.files)):
            yield from self._live_blocks(number, rows, columns)

    def live_block(self, number: int) -> VectorBlock:
        """The live rows of a file."""
        return self._block(self.files.read(number, ["row", "id", "count", "live", "vector"]))

    def select(
        self, rows: Sequence[int], block_rows: int = 0, *, bias: bool = False
    ) -> VectorBlock:
        """Some rows, distinct and live, in this order; only files that hold some are read.

        Args:
            rows: which rows.
            block_rows: read at most so many rows at once; 0 for a whole file.
            bias: read biases too, of a model that has any.
        """
        wanted = np.sort(np.array(rows, np.int64))
        columns = ["row", "id", "count", "live", "vector", *["bias"] * bias]
        blocks = [self._empty(bias=bias)]
        for number in np.unique(self.files.file_of(wanted)).tolist():
            found = self._live_blocks(number, block_rows, columns)
            blocks += [one.take(np.flatnonzero(np.isin(one.row_N, wanted))) for one in found]
        # Files are in order of rows, and so are the blocks.
        return VectorBlock.concatenated(blocks).take(np.searchsorted(wanted, rows))

    def _live_blocks(self, number: int, rows: int, columns: list[str]) -> Iterator[VectorBlock]:
        if not rows:
            yield self._block(self.files.read(number, columns))
            return
        path = self.files.entries[number].path
        for batch in self.export.batches(path, rows, columns):
            yield self._block(pa.Table.from_batches([batch]))

    def _block(self, table: pa.Table) -> VectorBlock:
        """The live rows of a table."""
        table = table.filter(table["live"])
        vector_ND = np.empty((table.num_rows, 0), np.float32)
        if "vector" in table.column_names:
            vector_ND = to_matrix(table["vector"], self.dim)
        bias_N = numbers(table["bias"]) if "bias" in table.column_names else None
        row_N, count_N = numbers(table["row"]), numbers(table["count"])
        return VectorBlock(row_N, table["id"].combine_chunks(), count_N, vector_ND, bias_N)

    def _empty(self, *, bias: bool) -> VectorBlock:
        none, vector_ND = np.empty(0, np.int64), np.empty((0, self.dim), np.float32)
        bias_N = np.empty(0, np.float32) if bias else None
        return VectorBlock(none, pa.array([], pa.string()), none, vector_ND, bias_N)

    def _matrix(self, number: int) -> Floats:
        return to_matrix(self.files.read(number, ["vector"])["vector"], self.dim)


@dataclass(frozen=True)
class LiveFile:
    """A file that has live rows: its number and first row, and its live rows.

    `position` is that of its first live row among all live rows, `items` how many it has.
    """

    number: int
    first: int
    position: int
    items: int


@dataclass(frozen=True)
class LiveVectors:
    """The live vectors of one side, a file at a time, by their position among all live ones.

    Nothing that grows with the vectors is kept in memory. Picklable.
    """

    vectors: Vectors
    files: tuple[LiveFile, ...]

    @staticmethod
    def of(vectors: Vectors) -> LiveVectors:
        """Counts the live rows of each file; files without any are left out."""
        found, position, files = [], 0, vectors.files
        for number in range(len(files)):
            items = int(numbers(files.read(number, ["live"])["live"]).sum())
            if items:
                found.append(LiveFile(number, int(files.starts[number]), position, items))
            position += items
        return LiveVectors(vectors, tuple(found))

    @property
    def items(self) -> int:
        """Live rows in all."""
        return sum(file.items for file in self.files)

    @property
    def dim(self) -> int:
        """D."""
        return self.vectors.dim

    def read(self, file: LiveFile) -> tuple[Rows, Floats]:
        """Rows and vectors of the live rows of a file, int64 [N] and float32 [N, D]."""
        table = self.vectors.files.read(file.number, ["live", "vector"])
        live_N = numbers(table["live"])
        vector_ND = to_matrix(table["vector"], self.dim)
        rows = file.first + np.flatnonzero(live_N)
        return rows, vector_ND if live_N.all() else vector_ND[live_N]

    def read_ids(self, file: LiveFile) -> pa.Table:
        """Columns row and id of the live rows of a file."""
        table = self.vectors.files.read(file.number, ["id", "live"])
        live_N = numbers(table["live"])
        ids = table["id"].filter(pa.array(live_N))
        return pa.table({"row": file.first + np.flatnonzero(live_N), "id": ids})

    def gather(self, position_R: Rows) -> Floats:
        """Vectors at some positions, float32 [R, D]; reads each file that has one."""
        vector_RD = np.empty((len(position_R), self.dim), np.float32)
        starts = [file.position for file in self.files]
        file_R = np.searchsorted(starts, position_R, side="right") - 1
        for one in np.unique(file_R):
            at, file = np.flatnonzero(file_R == one), self.files[one]
            vector_RD[at] = self.read(file)[1][position_R[at] - file.position]
        return vector_RD
