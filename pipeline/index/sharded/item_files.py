"""The live items of a large catalogue, one exported file at a time.

A catalogue that does not fit into memory is only ever read file by file. Which items are in a file
does not depend on the number of workers.

Legend: N live items of a file, R positions, D coordinates.
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from embedmill.pipeline.index.searchable import Floats, Rows
from embedmill.pipeline.views.vectors import RANGE, Vectors, part_path, to_matrix

__all__ = ["ItemFile", "ItemFiles", "group_files", "read_live_vectors"]


@dataclass(frozen=True)
class ItemFile:
    """A file of exported item vectors.

    `first_row` is the row of its first vector, `first_position` the position of its first live
    item among all live items, `items` the number of live items in it.
    """

    number: int
    first_row: int
    first_position: int
    items: int


@dataclass(frozen=True)
class ItemFiles:
    """The files with live items; files without any are left out."""

    vectors: Vectors
    files: tuple[ItemFile, ...]

    @staticmethod
    def of(vectors: Vectors) -> ItemFiles:
        """Count the live items of each file."""
        files, position = [], 0
        for number in range(-(-vectors.count // RANGE)):
            table = vectors.export.read_table(part_path(vectors.side, number), ["live"])
            items = int(table["live"].to_numpy().sum())
            if items:
                files.append(ItemFile(number, number * RANGE, position, items))
            position += items
        return ItemFiles(vectors, tuple(files))

    @property
    def items(self) -> int:
        """Live items in all files."""
        return sum(file.items for file in self.files)

    @property
    def dim(self) -> int:
        """D."""
        return self.vectors.dim

    def live_ids(self, file: ItemFile) -> pa.Table:
        """Columns row and id of the live items of a file."""
        path = part_path(self.vectors.side, file.number)
        table = self.vectors.export.read_table(path, ["id", "live"])
        live = table["live"].to_numpy().astype(bool)
        ids = table["id"].filter(pa.array(live))
        return pa.table({"row": file.first_row + np.flatnonzero(live), "id": ids})

    def gather(self, position_R: Rows) -> Floats:
        """Vectors of items by position, float32 [R, D]; reads each file that has one of them."""
        vector_RD = np.empty((len(position_R), self.dim), np.float32)
        starts = [file.first_position for file in self.files]
        file_R = np.searchsorted(starts, position_R, side="right") - 1
        for number in np.unique(file_R):
            in_file, file = np.flatnonzero(file_R == number), self.files[number]
            _, item_ND = read_live_vectors(self.vectors, file)
            vector_RD[in_file] = item_ND[position_R[in_file] - file.first_position]
        return vector_RD


def read_live_vectors(vectors: Vectors, file: ItemFile) -> tuple[Rows, Floats]:
    """Rows int64 [N] and vectors float32 [N, D] of the live items of a file."""
    table = vectors.export.read_table(part_path(vectors.side, file.number), ["live", "vector"])
    live = table["live"].to_numpy().astype(bool)
    item_ND = to_matrix(table["vector"], vectors.dim)
    return file.first_row + np.flatnonzero(live), item_ND if live.all() else item_ND[live]


def group_files(files: Sequence[ItemFile], count: int) -> list[tuple[ItemFile, ...]]:
    """Split the files into at most `count` runs of about as many items each; pure."""
    ends = np.cumsum([file.items for file in files]).tolist()
    total = ends[-1] if ends else 0
    cuts = [bisect.bisect_left(ends, total * cut / count) + 1 for cut in range(1, count)]
    bounds = sorted({0, *(min(cut, len(files)) for cut in cuts), len(files)})
    return [tuple(files[a:b]) for a, b in itertools.pairwise(bounds)]
