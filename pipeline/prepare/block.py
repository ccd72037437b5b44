"""What the source formats have in common: a split of a file in, blocks of records out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

__all__ = ["MAX_RAW", "Block", "Layout", "Rejects", "Split", "shortened"]

MAX_RAW = 4096  # bytes kept of a bad line


@dataclass(frozen=True)
class Split:
    """A part of a raw file: bytes [start, end) of text, row groups [start, end) of Parquet.

    `end` is -1 for a whole file. `name` is how rejects call the file, `bytes` the split's size.
    """

    number: int
    url: str
    name: str
    start: int
    end: int
    bytes: int


@dataclass(frozen=True)
class Layout:
    """How the files of a log are laid out; `wanted` columns, empty for all."""

    format: str
    separator: str
    quote: str
    encoding: str
    header: bool
    names: tuple[str, ...]
    wanted: tuple[str, ...]


@dataclass(frozen=True)
class Rejects:
    """Records that could not be read: their line, reason and bytes, in no order."""

    lines: list[int]
    reasons: list[str]
    raw: list[bytes]


@dataclass(frozen=True)
class Block:
    """Records of a split whose structure is sound.

    `columns` by name (strings where the file is text); `lines` the line each record starts
    at, from 1; `raw(rows)` the bytes of chosen records as they stood in the file.
    """

    columns: dict[str, pa.Array]
    lines: npt.NDArray[np.int64]
    raw: Callable[[npt.NDArray[np.int64]], pa.Array]
    rejects: Rejects

    @property
    def rows(self) -> int:
        """Sound records."""
        return len(self.lines)


def shortened(raw: pa.Array) -> pa.Array:
    """Binary values cut to MAX_RAW bytes."""
    return pc.binary_slice(raw.cast(pa.binary()), 0, MAX_RAW)
