"""Lines of text files, or of parts of them: decompressed, and cut into chunks of whole lines.

Blank lines at the end of a file are no lines.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from embedmill.pipeline.errors import InputError
from embedmill.pipeline.prepare.readers.compression import codec_of, opened
from embedmill.pipeline.prepare.readers.line_batch import Chunk, unusable, usable
from embedmill.pipeline.prepare.readers.parsed_batch import MAX_RAW, Layout, Split
from embedmill.pipeline.store.storage import Source, open_source

__all__ = ["chunks", "count_lines", "cut", "first_line"]

_READ = 4 << 20
_BOM = codecs.BOM_UTF8
# Their newline is not one byte, so their lines can only be cut after decoding.
_WIDE = ("utf-16", "utf-32")
_CUT = 32 << 20  # bytes of a part of a file that can be read in parts
_TAIL = 1 << 16


def cut(source: Source, layout: Layout) -> list[tuple[int, int]]:
    """Where a file may be cut: anywhere, unless it is compressed or lines hold newlines.

    A part has the lines that begin in it. The end of the last is before blank lines.
    """
    whole = codec_of(source.url) or layout.quote or layout.encoding.startswith(_WIDE)
    if whole or source.bytes < 2 * _CUT:
        return [(0, -1)] if source.bytes else []
    end = _end(source)
    parts = max(1, end // _CUT)
    bounds = [end * part // parts for part in range(parts + 1)]
    return list(pairwise(bounds)) if end else []


def _end(source: Source) -> int:
    """Where the last line that is not blank ends."""
    end = source.bytes
    with open_source(source.url) as raw:
        while end:
            start = max(0, end - _TAIL)
            raw.seek(start)
            kept = len(raw.read(end - start).rstrip(b"\r\n"))
            if kept:
                return start + kept
            end = start
    return 0


def count_lines(url: str, start: int, end: int) -> int:
    """How many lines begin in [start, end) of a file that is not compressed."""
    found, position = int(start == 0), max(0, start - 1)
    with open_source(url) as raw:
        raw.seek(position)
        while position < end - 1 and (data := raw.read(min(_READ, end - 1 - position))):
            found += data.count(b"\n")
            position += len(data)
    return found


def first_line(url: str, layout: Layout) -> Chunk:
    """The chunk of a file's first line; of no lines where it is empty."""
    split = Split(0, url, url, 0, 1, 1, last=False)
    return next(chunks(split, layout), Chunk(1, b"", 0))


def chunks(split: Split, layout: Layout) -> Iterator[Chunk]:
    """The lines that begin in a split, in order.

    Raises:
        InputError: the file is gone, or its compression is damaged.
    """
    first, encoding = split.first, layout.encoding
    inner = "utf-8" if encoding.startswith(_WIDE) else encoding
    most = layout.max_line
    for data, too_long in _whole_lines(_bytes(split, encoding), most, split.last):
        chunk = unusable(first, data) if too_long else usable(data, inner, first, most)
        first += chunk.size
        yield chunk


def _bytes(split: Split, encoding: str) -> Iterator[bytes]:
    """Decompressed bytes without a BOM; those of wide encodings come out as UTF-8."""
    wide = codecs.getincrementaldecoder(encoding)() if encoding.startswith(_WIDE) else None
    try:
        with open_source(split.url) as raw, opened(raw, split.url) as stream:
            fresh = split.start == 0
            for data in _ranged(stream, split.start, split.end):
                if wide is not None:
                    data = wide.decode(data).encode()
                yield data.removeprefix(_BOM) if fresh else data
                fresh = False
            if wide is not None:
                yield wide.decode(b"", final=True).encode()
    except FileNotFoundError:
        raise InputError("is gone since the run was planned", where=split.url) from None
    except UnicodeDecodeError as error:
        raise InputError(f"is not {encoding}: {error}", where=split.url) from None


def _ranged(stream: Any, start: int, end: int) -> Iterator[bytes]:
    """The bytes of the lines that begin in [start, end); all from `start` where end is -1."""
    position = max(0, start - 1)
    if position:
        stream.seek(position)
    inside = start > 0  # of a line that began before
    while data := stream.read(_READ):
        base, position = position, position + len(data)
        if inside:
            newline = data.find(b"\n")
            if newline < 0:
                continue
            data, base, inside = data[newline + 1 :], base + newline + 1, False
            if 0 <= end <= base:
                return
        if 0 <= end <= position:
            newline = data.find(b"\n", max(0, end - 1 - base))
            if newline >= 0:
                yield data[: newline + 1]
                return
        yield data


def _whole_lines(stream: Iterator[bytes], most: int, last: bool) -> Iterator[tuple[bytes, bool]]:
    """Pieces that hold whole lines, without the newline at their end.

    Newlines at the end of a piece are kept back: if nothing follows, they are no lines, unless
    the file goes on behind the stream (`last` is false). Of a line that grows beyond `most`
    bytes only the start comes, with True.
    """
    rest, long = b"", b""
    for data in stream:
        if long:
            newline = data.find(b"\n")
            if newline < 0:
                continue
            yield long, True
            long, data = b"", data[newline + 1 :]
            if not data:
                continue
        data = rest + data
        end = len(data.rstrip(b"\r\n"))
        newline = data.rfind(b"\n", 0, end)
        if newline >= 0:
            yield data[:newline], False
            data = data[newline + 1 :]
        rest = data
        if len(rest) > most:
            newline = rest.find(b"\n")
            if newline >= 0:  # blank lines without end
                yield rest[:newline], False
                rest = rest[newline + 1 :]
            else:
                long, rest = rest[:MAX_RAW], b""
    if long:
        yield long, True
    rest = rest.rstrip(b"\r\n") if last else rest
    if rest:
        yield rest.removesuffix(b"\n"), False
