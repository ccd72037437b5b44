"""Vectors of a side in several numbered files, which tasks write at once.

A task writes the vectors of one file of the artifact `export`. The number of its first file follows
from how many live vectors the artifact's files before it have, so that the result does not depend
on who writes it.

Legend: F files of the artifact.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from embedmill.pipeline.formats.vector_table import NumberBlock, VectorTable

__all__ = ["NumberedFiles"]


@dataclass(frozen=True)
class NumberedFiles:
    """How a format writes the vectors of a side into several files.

    Attributes:
        path: of a file below the folder, with fields `side` and `number`.
        write: writes some vectors of a table to a path.
        coordinates: how many a file has at most, by the dimension of the vectors.
    """

    path: str
    write: Callable[[VectorTable, NumberBlock, Path], None]
    coordinates: Callable[[int], int]

    def first_numbers(self, table: VectorTable) -> list[int]:
        """The number of the first file that each file of the artifact becomes, [F]."""
        rows = max(1, self.coordinates(table.dim) // max(1, table.dim))
        files = [-(-live // rows) for live in table.live_by_file]
        return [int(number) for number in np.cumsum([0, *files])[:-1]]

    def write_from(self, table: VectorTable, folder: Path, source: int, first: int) -> int:
        """Write the vectors of one file of the artifact.

        Args:
            table: of a side.
            folder: of the format.
            source: number of the artifact's file.
            first: number of the first file to write.

        Returns:
            how many vectors there were.
        """
        vectors = 0
        pieces = table.block(source).pieces(self.coordinates(table.dim))
        for number, piece in enumerate(pieces, first):
            path = folder / self.path.format(side=table.side, number=number)
            path.parent.mkdir(exist_ok=True)
            self.write(table, piece, path)
            vectors += len(piece.row_N)
        return vectors
