"""What the source formats have in common: a split of a file in, blocks of records out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from embedmill.schemas.events import CODES, REASONS

__all__ = ["MAX_RAW", "Block", "Ints", "Layout", "Rejects", "Split", "first_of_each", "shortened"]

MAX_RAW = 4096  # bytes kept of a bad line
_NAMES = np.array(list(REASONS))
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Split:
    """A part of a raw file: bytes [start, end) of text, row groups [start, end) of Parquet.

    `end` is -1 for a whole file. `name` is how rejects call the file, `bytes` the split's size,
    `first` the number of its first line, `folders` the values of its Hive folders as JSON;
    splits of one `bundle` are read by one task, one after the other.
    """

    number: int
    url: str
    name: str
    start: int
    end: int
    bytes: int
    format: str = ""
    folders: str = "{}"
    first: int = 1
    last: bool = True
    bundle: int = 0


@dataclass(frozen=True)
class Layout:
    """How the files of a log are laid out; `wanted` columns, empty for all.

    `aliases` are other names of a wanted column, `defaults` its value where a record has none,
    `explode` is the path of a list of events in each record. In the columns `flags` true and
    false are values; elsewhere they count as missing.
    """

    format: str
    separator: str
    quote: str
    encoding: str
    header: bool
    names: tuple[str, ...]
    wanted: tuple[str, ...]
    aliases: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    defaults: Mapping[str, str] = field(default_factory=dict)
    flags: frozenset[str] = frozenset()
    explode: str = ""
    max_line: int = 16 << 20

    def known_as(self, column: str) -> tuple[str, ...]:
        """All names of a wanted column, itself first."""
        return (column, *(n for n in self.aliases.get(column, ()) if n != column))


@dataclass(frozen=True)
class Rejects:
    """Records that could not be read: line, code of the reason, bytes (MAX_RAW), in no order.

    The bytes are null where so many were rejected before for this reason that they are not kept.
    """

    lines: Ints
    codes: npt.NDArray[np.int8]
    raw: pa.Array

    @classmethod
    def none(cls) -> Rejects:
        """No rejects."""
        return cls(np.empty(0, np.int64), np.empty(0, np.int8), pa.array([], pa.binary()))

    @classmethod
    def of(cls, reason: str, lines: Ints, raw: pa.Array) -> Rejects:
        """Rejects for one reason."""
        return cls(lines, np.full(len(lines), CODES[reason], np.int8), shortened(raw))

    @classmethod
    def joined(cls, parts: Sequence[Rejects]) -> Rejects:
        """All of them."""
        parts = [part for part in parts if len(part.lines)]
        if len(parts) < 2:
            return parts[0] if parts else cls.none()
        return cls(
            np.concatenate([part.lines for part in parts]),
            np.concatenate([part.codes for part in parts]),
            pa.concat_arrays([part.raw for part in parts]),
        )

    @property
    def reasons(self) -> list[str]:
        """The reason against each."""
        return _NAMES[self.codes].tolist()  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Block:
    """Records of a split whose structure is sound.

    `columns` by name (strings where the file is text); `lines` the line each record starts
    at, from 1; `raw(rows)` the bytes of chosen records as they stood in the file. `empty` are
    records whose list of events, `events.explode`, has none.
    """

    columns: dict[str, pa.Array]
    lines: Ints
    raw: Callable[[Ints], pa.Array]
    rejects: Rejects
    empty: int = 0

    @property
    def rows(self) -> int:
        """Sound records."""
        return len(self.lines)


def first_of_each(
    lines: Ints, codes: npt.NDArray[np.int8], most: Ints | int
) -> npt.NDArray[np.int64]:
    """Positions of the first rejects of each reason, in order of lines.

    Args:
        most: how many of a reason, for all or by its code.
    """
    order = np.argsort(lines, kind="stable")
    least, keep = np.broadcast_to(most, len(REASONS)), np.zeros(len(order), bool)
    for code in np.unique(codes):
        keep[np.flatnonzero(codes[order] == code)[: max(0, int(least[code]))]] = True
    return order[keep]


def shortened(raw: pa.Array) -> pa.Array:
    """Binary values cut to MAX_RAW bytes."""
    return pc.binary_slice(raw.cast(pa.binary()), 0, MAX_RAW)
