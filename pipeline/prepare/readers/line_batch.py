"""Chunks of whole lines: bytes of a text file decoded, and the lines that cannot be used.

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

from embedmill.pipeline.prepare.parse.values import Mask
from embedmill.pipeline.prepare.readers.parsed_batch import MAX_RAW, Ints, Rejects
from embedmill.schemas.events import CODES

__all__ = ["Chunk", "decoded", "unusable", "usable"]

_NEWLINE = 10
_DECODED = 1 << 14  # bytes decoded at a time where a chunk has bytes that cannot be
_FEW = 8  # where fewer than one of so many lines may be broken, these are looked at alone


@dataclass(frozen=True)
class Chunk:
    """Whole lines of a file in UTF-8, LF between them; the first has number `first`.

    Lines at positions `bad` cannot be used and are empty; `codes` are the reasons and `raw` the
    bytes of these.
    """

    first: int
    data: bytes
    size: int
    bad: Ints = field(default_factory=lambda: np.empty(0, np.int64))
    codes: npt.NDArray[np.int8] = field(default_factory=lambda: np.empty(0, np.int8))
    raw: pa.Array = field(default_factory=lambda: pa.array([], pa.binary()))

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
        """Where in `data` each line starts and ends."""
        return _bounds(self.data) if self.size else (self.bad[:0], self.bad[:0])

    def counts(self, byte: int) -> Ints:
        """How often a byte stands in each line."""
        data = np.frombuffer(self.data, np.uint8)
        marks = np.flatnonzero((data == byte) | (data == _NEWLINE))
        ends = np.flatnonzero(data[marks] == _NEWLINE)
        counts: Ints = np.diff(ends, prepend=-1, append=len(marks)) - 1
        return counts[: self.size]

    def only(self, chosen: Mask) -> bytes:
        """The lines that the mask chooses, LF between them."""
        starts, ends = self.bounds
        edges = np.flatnonzero(np.diff(chosen.astype(np.int8), prepend=0, append=0))
        first, last = starts[edges[::2]].tolist(), ends[edges[1::2] - 1].tolist()
        return b"\n".join([self.data[a:b] for a, b in zip(first, last, strict=True)])

    def lines_at(self, positions: Ints) -> pa.Array:
        """The bytes of lines, at most MAX_RAW of each; for few lines."""
        starts, ends = self.bounds
        return _raw(self.data, starts[positions], ends[positions])

    def rejects_before(self, position: int) -> Rejects:
        """Those of the lines before a position."""
        count = int(np.searchsorted(self.bad, position))
        lines = self.first + self.bad[:count]
        return Rejects(lines, self.codes[:count], self.raw.slice(0, count))

    def after(self, lines: int) -> Chunk:
        """The chunk without its first lines."""
        if lines == 1:
            start = self.data.find(b"\n") + 1 or len(self.data)
        else:
            starts = self.bounds[0]
            start = int(starts[lines]) if lines < len(starts) else len(self.data)
        kept = self.bad >= lines
        return Chunk(
            self.first + lines,
            self.data[start:],
            self.size - lines,
            self.bad[kept] - lines,
            self.codes[kept],
            self.raw.filter(pa.array(kept)),
        )

    def followed_by(self, other: Chunk) -> Chunk:
        """Both, where `other` is what comes next in the file."""
        if not self.size or not other.size:
            return self if self.size else other
        return Chunk(
            self.first,
            self.data + b"\n" + other.data,
            self.size + other.size,
            np.concatenate([self.bad, other.bad + self.size]),
            np.concatenate([self.codes, other.codes]),
            pa.concat_arrays([self.raw, other.raw]),
        )


def usable(data: bytes, encoding: str, first: int, most: int) -> Chunk:
    """Lines of `data`; those of more than `most` bytes are among the bad ones."""
    if len(data) <= most:
        return decoded(data, encoding, first)
    starts, ends = _bounds(data)
    long = np.flatnonzero(ends - starts > most)
    if not len(long):
        return decoded(data, encoding, first)
    raw = _raw(data, starts[long], ends[long])
    chunk = decoded(_blanked(data, starts[long], ends[long]), encoding, first)
    order = np.argsort(np.concatenate([chunk.bad, long]))
    codes = np.full(len(long), CODES["line_too_long"], np.int8)
    return Chunk(
        first,
        chunk.data,
        chunk.size,
        np.concatenate([chunk.bad, long])[order],
        np.concatenate([chunk.codes, codes])[order],
        pa.concat_arrays([chunk.raw, raw]).take(pa.array(order)),
    )


def unusable(first: int, start: bytes) -> Chunk:
    """One line that is too long, of which only the start was kept."""
    codes = np.array([CODES["line_too_long"]], np.int8)
    return Chunk(first, b"", 1, np.zeros(1, np.int64), codes, pa.array([start], pa.binary()))


def decoded(data: bytes, encoding: str, first: int) -> Chunk:
    """Lines of `data`, which has no newline at its end."""
    if b"\r" in data:
        data = data.replace(b"\r\n", b"\n").removesuffix(b"\r")
    size = data.count(b"\n") + 1
    if encoding == "utf-8":
        if _is_utf8(data):
            return Chunk(first, data, size)
    else:
        try:
            return Chunk(first, data.decode(encoding).encode(), size)
        except UnicodeDecodeError:
            pass
    starts, ends = _bounds(data)
    bad = np.array(_undecodable(data, encoding, starts, ends), np.int64)
    raw = _raw(data, starts[bad], ends[bad])
    text = _blanked(data, starts[bad], ends[bad])
    text = text if encoding == "utf-8" else text.decode(encoding).encode()
    return Chunk(first, text, size, bad, np.full(len(bad), CODES["encoding"], np.int8), raw)


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
        if len(suspects) * _FEW < len(ends):
            slices = zip(starts[suspects].tolist(), ends[suspects].tolist(), strict=True)
            broken = [not _decodes(data[start:end], encoding) for start, end in slices]
            found: list[int] = suspects[np.array(broken, bool)].tolist()
            return found
    return list(_one_after_another(data, encoding))


def _decodes(data: bytes, encoding: str) -> bool:
    try:
        data.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True


def _one_after_another(data: bytes, encoding: str) -> Iterator[int]:
    """The same, by pieces, since Python's error copies what it could not decode."""
    line = 0
    for piece in _pieces(data):
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


def _pieces(data: bytes) -> Iterator[bytes]:
    """Runs of whole lines of about _DECODED bytes."""
    start = 0
    while start <= len(data):
        end = data.find(b"\n", min(len(data), start + _DECODED))
        end = len(data) if end < 0 else end
        yield data[start:end]
        start = end + 1


def _bounds(data: bytes) -> tuple[Ints, Ints]:
    """Where each line starts and ends."""
    newlines = np.flatnonzero(np.frombuffer(data, np.uint8) == _NEWLINE)
    return np.append(0, newlines + 1), np.append(newlines, len(data))


def _raw(data: bytes, starts: Ints, ends: Ints) -> pa.Array:
    """The bytes of lines, at most MAX_RAW of each."""
    bounds = zip(starts.tolist(), ends.tolist(), strict=True)
    return pa.array([data[a : min(b, a + MAX_RAW)] for a, b in bounds], pa.binary())


def _blanked(data: bytes, starts: Ints, ends: Ints) -> bytes:
    """The data with nothing left of lines but their ends."""
    kept, done = [], 0
    for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
        kept.append(data[done:start])
        done = end
    return b"".join([*kept, data[done:]])
