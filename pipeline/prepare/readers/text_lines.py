"""Lines of text files or of slices of them, decompressed, in batches of whole lines.

Blank lines at the end of a file do not count as lines.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from embedmill.pipeline.errors import InputError
from embedmill.pipeline.prepare.parse.rejects import MAX_RAW
from embedmill.pipeline.prepare.readers.compression import codec_of, decompressed
from embedmill.pipeline.prepare.readers.file_slice import FileSlice
from embedmill.pipeline.prepare.readers.layout import Layout
from embedmill.pipeline.prepare.readers.line_batch import LineBatch, decode_batch, too_long_line
from embedmill.pipeline.store.storage import Source, open_source

__all__ = ["count_lines", "first_line", "line_batches", "slice_file"]

_READ_BYTES = 4 << 20  # at a time
_BOM = codecs.BOM_UTF8
# A newline takes several bytes in these, so lines can only be found after decoding.
_WIDE = ("utf-16", "utf-32")
_SLICE_BYTES = 32 << 20
_TAIL_BYTES = 1 << 16  # read at a time to find the end of the last line


def slice_file(source: Source, layout: Layout) -> list[tuple[int, int]]:
    """Slices of a file, about _SLICE_BYTES each; the lines that begin in a slice belong to it.

    A file is one slice where it is compressed, where fields may hold newlines, and in UTF-16 and
    UTF-32. The last slice ends before blank lines.
    """
    whole = codec_of(source.url) or layout.quote or layout.encoding.startswith(_WIDE)
    if whole or source.bytes < 2 * _SLICE_BYTES:
        return [(0, -1)] if source.bytes else []
    end = _end_of_text(source)
    parts = max(1, end // _SLICE_BYTES)
    bounds = [end * part // parts for part in range(parts + 1)]
    return list(pairwise(bounds)) if end else []


def _end_of_text(source: Source) -> int:
    """The byte at which the last line that is not blank ends."""
    end = source.bytes
    with open_source(source.url) as raw:
        while end:
            start = max(0, end - _TAIL_BYTES)
            raw.seek(start)
            kept = len(raw.read(end - start).rstrip(b"\r\n"))
            if kept:
                return start + kept
            end = start
    return 0


def count_lines(url: str, start: int, end: int) -> int:
    """How many lines begin in [start, end) of a file that is not compressed."""
    lines, position = int(start == 0), max(0, start - 1)
    with open_source(url) as raw:
        raw.seek(position)
        while position < end - 1 and (data := raw.read(min(_READ_BYTES, end - 1 - position))):
            lines += data.count(b"\n")
            position += len(data)
    return lines


def first_line(url: str, layout: Layout) -> LineBatch:
    """A batch with a file's first line; without lines where the file is empty."""
    start = FileSlice(0, url, url, 0, 1, 1, ends_file=False)
    return next(line_batches(start, layout), LineBatch(1, b"", 0))


def line_batches(part: FileSlice, layout: Layout) -> Iterator[LineBatch]:
    """The lines that begin in a slice, in order.

    Raises:
        InputError: the file is gone, or its compression is damaged.
    """
    line, encoding = part.first_line, layout.encoding
    byte_encoding = "utf-8" if encoding.startswith(_WIDE) else encoding
    most = layout.max_line_bytes
    for data, too_long in _whole_lines(_bytes(part, encoding), most, part.ends_file):
        if too_long:
            batch = too_long_line(line, data)
        else:
            batch = decode_batch(data, byte_encoding, line, most)
        line += batch.size
        yield batch


def _bytes(part: FileSlice, encoding: str) -> Iterator[bytes]:
    """Decompressed bytes without a BOM; UTF-16 and UTF-32 are converted to UTF-8."""
    wide = codecs.getincrementaldecoder(encoding)() if encoding.startswith(_WIDE) else None
    try:
        with open_source(part.url) as raw, decompressed(raw, part.url) as stream:
            at_start = part.start == 0
            for data in _lines_between(stream, part.start, part.end):
                if wide is not None:
                    data = wide.decode(data).encode()
                yield data.removeprefix(_BOM) if at_start else data
                at_start = False
            if wide is not None:
                yield wide.decode(b"", final=True).encode()
    except FileNotFoundError:
        raise InputError("was removed after the run was planned", where=part.url) from None
    except UnicodeDecodeError as error:
        raise InputError(f"is not {encoding}: {error}", where=part.url) from None


def _lines_between(stream: Any, start: int, end: int) -> Iterator[bytes]:
    """The bytes of the lines that begin in [start, end); all from `start` where end is -1."""
    position = max(0, start - 1)
    if position:
        stream.seek(position)
    inside = start > 0  # inside a line that began before the slice
    while data := stream.read(_READ_BYTES):
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


def _whole_lines(
    stream: Iterator[bytes], most: int, ends_file: bool
) -> Iterator[tuple[bytes, bool]]:
    """Runs of whole lines without the newline at their end, each with False.

    Newlines at the end of the data read so far are held back: at the end of the file they are
    blank lines, which do not count. Of a line longer than `most` bytes only the first MAX_RAW
    bytes are yielded, with True.

    Args:
        stream: the bytes of the lines, in pieces.
        most: the longest line that is read whole, in bytes.
        ends_file: whether the file ends where the stream does.
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
            if newline >= 0:  # more than `most` bytes of blank lines
                yield rest[:newline], False
                rest = rest[newline + 1 :]
            else:
                long, rest = rest[:MAX_RAW], b""
    if long:
        yield long, True
    rest = rest.rstrip(b"\r\n") if ends_file else rest
    if rest:
        yield rest.removesuffix(b"\n"), False
