"""Chunks of whole lines: bytes of a text file decoded, and the lines that cannot be used.

A line ends at LF or CR LF.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.prepare.block import MAX_RAW, Ints, Rejects, shortened
from pipeline.prepare.reasons import CODES

__all__ = ["Chunk", "decoded", "unusable", "usable"]

_NEWLINE = 10
_DECODED = 1 << 14  # bytes decoded at a time where a chunk has bytes that cannot be


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

    def rejects_before(self, position: int) -> Rejects:
        """Those of the lines before a position."""
        count = int(np.searchsorted(self.bad, position))
        lines = self.first + self.bad[:count]
        return Rejects(lines, self.codes[:count], self.raw.slice(0, count))

    def lines_at(self, positions: Ints) -> pa.Array:
        """The bytes of lines, at most MAX_RAW of each."""
        return shortened(self.lines.take(pa.array(positions)))

    def after(self, lines: int) -> Chunk:
        """The chunk without its first lines."""
        if lines == 1:
            start = self.data.find(b"\n") + 1 or len(self.data)
        else:
            offsets = np.frombuffer(self.lines.buffers()[1], np.int32)
            start = int(offsets[lines]) + lines  # as many newlines lie before
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
    return _decodable(data, encoding, first)


def _is_utf8(data: bytes) -> bool:
    offsets = pa.py_buffer(np.array([0, len(data)], np.int64))
    try:
        pa.LargeStringArray.from_buffers(1, offsets, pa.py_buffer(data)).validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True


def _decodable(data: bytes, encoding: str, first: int) -> Chunk:
    """The lines that can be decoded; the work grows with their bytes, not with the bad ones."""
    kept: list[bytes] = []  # runs of whole lines
    bad: list[int] = []
    raw: list[bytes] = []
    line = 0
    for piece in _pieces(data):
        while True:
            try:
                kept.append(piece.decode(encoding).encode())
            except UnicodeDecodeError as error:
                begin = piece.rfind(b"\n", 0, error.start) + 1
                stop = piece.find(b"\n", error.start)
                stop = len(piece) if stop < 0 else stop
                if begin:
                    kept.append(piece[: begin - 1].decode(encoding).encode())
                    line += piece.count(b"\n", 0, begin)
                kept.append(b"")
                bad.append(line)
                raw.append(piece[begin:stop][:MAX_RAW])
                line += 1
                if stop == len(piece):
                    break
                piece = piece[stop + 1 :]
            else:
                line += piece.count(b"\n") + 1
                break
    codes = np.full(len(bad), CODES["encoding"], np.int8)
    positions = np.array(bad, np.int64)
    return Chunk(first, b"\n".join(kept), line, positions, codes, pa.array(raw, pa.binary()))


def _pieces(data: bytes) -> Iterator[bytes]:
    """Runs of whole lines of about _DECODED bytes."""
    start = 0
    while start <= len(data):
        end = data.find(b"\n", min(len(data), start + _DECODED))
        end = len(data) if end < 0 else end
        yield data[start:end]
        start = end + 1


def usable(data: bytes, encoding: str, first: int, most: int) -> Chunk:
    """Lines of `data`; those of more than `most` bytes are among the bad ones."""
    if len(data) <= most:
        return decoded(data, encoding, first)
    ends = np.append(np.flatnonzero(np.frombuffer(data, np.uint8) == _NEWLINE), len(data))
    starts = np.append(0, ends[:-1] + 1)
    long = np.flatnonzero(ends - starts > most)
    pieces, raw, done = [], [], 0
    for start, end in zip(starts[long].tolist(), ends[long].tolist(), strict=True):
        pieces.append(data[done:start])
        raw.append(data[start : min(end, start + MAX_RAW)])
        done = end
    chunk = decoded(b"".join([*pieces, data[done:]]), encoding, first)
    bad = np.concatenate([chunk.bad, long])
    order = np.argsort(bad)
    codes = np.concatenate([chunk.codes, np.full(len(long), CODES["line_too_long"], np.int8)])
    raws = pa.concat_arrays([chunk.raw, pa.array(raw, pa.binary())]).take(pa.array(order))
    return replace(chunk, bad=bad[order], codes=codes[order], raw=raws)


def unusable(first: int, start: bytes) -> Chunk:
    """One line that is too long, of which only the start was kept."""
    codes = np.array([CODES["line_too_long"]], np.int8)
    return Chunk(first, b"", 1, np.zeros(1, np.int64), codes, pa.array([start], pa.binary()))
