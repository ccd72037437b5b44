"""Batches of whole lines: bytes of a text file decoded, with the lines that are rejected for it.

A line ends at LF or CR LF.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from embedmill.pipeline.prepare.parse.rejects import MAX_RAW, Rejects
from embedmill.pipeline.prepare.parse.values import Ints, Mask
from embedmill.schemas.events import CODES

__all__ = ["LineBatch", "decode_batch", "too_long_line"]

_NEWLINE = 10
_RUN_BYTES = 1 << 14  # decoded at a time in a batch that has undecodable bytes
# Where at most one in this many lines has bytes beyond ASCII, only those lines are decoded again.
_SUSPECT_RATIO = 8


@dataclass(frozen=True)
class LineBatch:
    """Consecutive whole lines of a file.

    Attributes:
        first_line: line number of the first one.
        data: the lines in UTF-8, LF between them; rejected ones are empty.
        size: number of lines.
        bad: positions of the lines that are rejected: undecodable or too long, rising.
        codes: the reason of each rejected line, as its position in REASONS.
        raw: the bytes of each rejected line, MAX_RAW at most.
        joined: positions of records that stand in the line of the record before them, rising.
    """

    first_line: int
    data: bytes
    size: int
    bad: Ints = field(default_factory=lambda: np.empty(0, np.int64))
    codes: npt.NDArray[np.int8] = field(default_factory=lambda: np.empty(0, np.int8))
    raw: pa.Array = field(default_factory=lambda: pa.array([], pa.binary()))
    joined: Ints = field(default_factory=lambda: np.empty(0, np.int64))

    def numbers(self, positions: Ints) -> Ints:
        """The line numbers of lines."""
        if not len(self.joined):
            return self.first_line + positions
        before: Ints = np.searchsorted(self.joined, positions, side="right")
        return self.first_line + positions - before

    @cached_property
    def lines(self) -> pa.Array:
        """The lines as strings."""
        if not self.size:
            return pa.array([], pa.string())
        whole = pa.array([self.data], pa.large_binary())
        lines = pc.split_pattern(whole, b"\n").flatten().cast(pa.binary())
        return pa.StringArray.from_buffers(len(lines), *lines.buffers()[1:], offset=lines.offset)

    @cached_property
    def bounds(self) -> tuple[Ints, Ints]:
        """The positions in `data` at which each line starts and ends."""
        return _bounds(self.data) if self.size else (self.bad[:0], self.bad[:0])

    def counts(self, byte: int) -> Ints:
        """How often a byte occurs in each line, [size]."""
        data = np.frombuffer(self.data, np.uint8)
        marks = np.flatnonzero((data == byte) | (data == _NEWLINE))
        ends = np.flatnonzero(data[marks] == _NEWLINE)
        counts: Ints = np.diff(ends, prepend=-1, append=len(marks)) - 1
        return counts[: self.size]

    def select(self, mask: Mask) -> bytes:
        """The lines where the mask is true, LF between them."""
        starts, ends = self.bounds
        edges = np.flatnonzero(np.diff(mask.astype(np.int8), prepend=0, append=0))
        first, last = starts[edges[::2]].tolist(), ends[edges[1::2] - 1].tolist()
        return b"\n".join([self.data[a:b] for a, b in zip(first, last, strict=True)])

    def raw_lines(self, positions: Ints) -> pa.Array:
        """The bytes of lines, at most MAX_RAW of each; slow for many lines."""
        starts, ends = self.bounds
        return _raw(self.data, starts[positions], ends[positions])

    def rejects_before(self, position: int) -> Rejects:
        """The rejected lines before a position."""
        count = int(np.searchsorted(self.bad, position))
        lines = self.numbers(self.bad[:count])
        return Rejects(lines, self.codes[:count], self.raw.slice(0, count))

    def skip(self, lines: int) -> LineBatch:
        """The batch without its first `lines` lines."""
        if lines == 1:
            start = self.data.find(b"\n") + 1 or len(self.data)
        else:
            starts = self.bounds[0]
            start = int(starts[lines]) if lines < len(starts) else len(self.data)
        kept = self.bad >= lines
        return LineBatch(
            self.first_line + lines,
            self.data[start:],
            self.size - lines,
            self.bad[kept] - lines,
            self.codes[kept],
            self.raw.filter(pa.array(kept)),
        )

    def append(self, other: LineBatch) -> LineBatch:
        """Both batches as one; `other` is what follows in the file."""
        if not self.size or not other.size:
            return self if self.size else other
        return LineBatch(
            self.first_line,
            self.data + b"\n" + other.data,
            self.size + other.size,
            np.concatenate([self.bad, other.bad + self.size]),
            np.concatenate([self.codes, other.codes]),
            pa.concat_arrays([self.raw, other.raw]),
        )


def decode_batch(data: bytes, encoding: str, first_line: int, most: int) -> LineBatch:
    """The lines of `data`, which has no newline at its end.

    Args:
        data: bytes of whole lines.
        encoding: of the data, by Python's name; one in which a newline is the byte LF.
        first_line: line number of the first line.
        most: bytes; longer lines are rejected.
    """
    if len(data) <= most:
        return _decode(data, encoding, first_line)
    starts, ends = _bounds(data)
    long = np.flatnonzero(ends - starts > most)
    if not len(long):
        return _decode(data, encoding, first_line)
    raw = _raw(data, starts[long], ends[long])
    batch = _decode(_blanked(data, starts[long], ends[long]), encoding, first_line)
    order = np.argsort(np.concatenate([batch.bad, long]))
    codes = np.full(len(long), CODES["line_too_long"], np.int8)
    return LineBatch(
        first_line,
        batch.data,
        batch.size,
        np.concatenate([batch.bad, long])[order],
        np.concatenate([batch.codes, codes])[order],
        pa.concat_arrays([batch.raw, raw]).take(pa.array(order)),
    )


def too_long_line(number: int, start: bytes) -> LineBatch:
    """A batch of one rejected line, of which only the start was read."""
    codes = np.array([CODES["line_too_long"]], np.int8)
    return LineBatch(number, b"", 1, np.zeros(1, np.int64), codes, pa.array([start], pa.binary()))


def _decode(data: bytes, encoding: str, first_line: int) -> LineBatch:
    """The lines of `data`, of any length."""
    if b"\r" in data:
        data = data.replace(b"\r\n", b"\n").removesuffix(b"\r")
    size = data.count(b"\n") + 1
    if encoding == "utf-8":
        if _is_utf8(data):
            return LineBatch(first_line, data, size)
    else:
        try:
            return LineBatch(first_line, data.decode(encoding).encode(), size)
        except UnicodeDecodeError:
            pass
    starts, ends = _bounds(data)
    bad = np.array(_undecodable(data, encoding, starts, ends), np.int64)
    raw = _raw(data, starts[bad], ends[bad])
    text = _blanked(data, starts[bad], ends[bad])
    text = text if encoding == "utf-8" else text.decode(encoding).encode()
    codes = np.full(len(bad), CODES["encoding"], np.int8)
    return LineBatch(first_line, text, size, bad, codes, raw)


def _is_utf8(data: bytes) -> bool:
    offsets = pa.py_buffer(np.array([0, len(data)], np.int64))
    try:
        pa.LargeStringArray.from_buffers(1, offsets, pa.py_buffer(data)).validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True


def _undecodable(data: bytes, encoding: str, starts: Ints, ends: Ints) -> list[int]:
    """Positions of the lines that cannot be decoded."""
    if encoding == "utf-8":
        beyond = np.flatnonzero(np.frombuffer(data, np.uint8) >= 128)
        suspects = np.unique(np.searchsorted(ends, beyond))
        if len(suspects) * _SUSPECT_RATIO < len(ends):
            slices = zip(starts[suspects].tolist(), ends[suspects].tolist(), strict=True)
            broken = [not _decodes(data[start:end], encoding) for start, end in slices]
            positions: list[int] = suspects[np.array(broken, bool)].tolist()
            return positions
    return list(_undecodable_in_order(data, encoding))


def _decodes(data: bytes, encoding: str) -> bool:
    try:
        data.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True


def _undecodable_in_order(data: bytes, encoding: str) -> Iterator[int]:
    """Positions of the lines that cannot be decoded, for any encoding.

    Decodes short runs of lines: Python's error holds a copy of all the data it was raised for.
    """
    line = 0
    for piece in _runs(data):
        start = 0
        while True:
            try:
                piece[start:].decode(encoding)
            except UnicodeDecodeError as error:
                at = start + error.start
                line += piece.count(b"\n", start, at)
                yield line
                stop = piece.find(b"\n", at)
                if stop < 0:
                    line += 1
                    break
                start, line = stop + 1, line + 1
            else:
                line += piece.count(b"\n", start) + 1
                break


def _runs(data: bytes) -> Iterator[bytes]:
    """Runs of whole lines of about _RUN_BYTES bytes."""
    start = 0
    while start <= len(data):
        end = data.find(b"\n", min(len(data), start + _RUN_BYTES))
        end = len(data) if end < 0 else end
        yield data[start:end]
        start = end + 1


def _bounds(data: bytes) -> tuple[Ints, Ints]:
    """The positions at which each line starts and ends."""
    newlines = np.flatnonzero(np.frombuffer(data, np.uint8) == _NEWLINE)
    return np.append(0, newlines + 1), np.append(newlines, len(data))


def _raw(data: bytes, starts: Ints, ends: Ints) -> pa.Array:
    """The bytes of lines, at most MAX_RAW of each."""
    bounds = zip(starts.tolist(), ends.tolist(), strict=True)
    return pa.array([data[a : min(b, a + MAX_RAW)] for a, b in bounds], pa.binary())


def _blanked(data: bytes, starts: Ints, ends: Ints) -> bytes:
    """The data with the given lines emptied; their newlines stay."""
    parts, position = [], 0
    for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
        parts.append(data[position:start])
        position = end
    return b"".join([*parts, data[position:]])
