"""Vectors of a side in files with numbers, which several tasks write at once.

A task writes the vectors of one file of the export. Its first number follows from how many live
vectors the files before it have, so that the files do not depend on who writes them.

Legend: N vectors of a file of the export, F files of the export.
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
        numbers: of a file, at most, by the dimension of the vectors.
    """

    path: str
    write: Callable[[VectorTable, NumberBlock, Path], None]
    numbers: Callable[[int], int]

    def first_numbers(self, table: VectorTable) -> list[int]:
        """The number of the first file of each file of the export, [F]."""
        rows = max(1, self.numbers(table.dim) // max(1, table.dim))
        files = [-(-live // rows) for live in table.live_by_file()]
        return [int(number) for number in np.cumsum([0, *files])[:-1]]

    def write_part(self, table: VectorTable, folder: Path, file: int, first: int) -> int:
        """Write the vectors of one file of the export.

        Args:
            table: of a side.
            folder: of the format.
            file: number of the export's file.
            first: number of the first file to write.

        Returns:
            how many vectors there were.
        """
        vectors = 0
        pieces = table.block(file).pieces(self.numbers(table.dim))
        for number, piece in enumerate(pieces, first):
            path = folder / self.path.format(side=table.side, number=number)
            path.parent.mkdir(exist_ok=True)
            self.write(table, piece, path)
            vectors += len(piece.row_N)
        return vectors
