"""Lines of text files or of slices of them, decompressed, in batches of whole lines.

A JSON document is read as if each of its records were a line.

Blank lines at the end of a file do not count as lines.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain, pairwise
from typing import Any

from embedmill.pipeline.errors import InputError
from embedmill.pipeline.prepare.parse.rejects import MAX_RAW
from embedmill.pipeline.prepare.readers.compression import START_BYTES, decompressed, file_codec
from embedmill.pipeline.prepare.readers.encodings import ends_lines_by_byte, file_encoding, in_utf8
from embedmill.pipeline.prepare.readers.file_slice import FileSlice
from embedmill.pipeline.prepare.readers.joined_records import last_join, separate_records
from embedmill.pipeline.prepare.readers.json_documents import is_document, whole_records
from embedmill.pipeline.prepare.readers.layout import Layout
from embedmill.pipeline.prepare.readers.line_batch import LineBatch, decode_batch, too_long_line
from embedmill.pipeline.store.sources import Source, open_source

__all__ = ["count_lines", "first_line", "line_batches", "slice_file"]

_READ_BYTES = 4 << 20  # at a time
_BOM = codecs.BOM_UTF8
_SLICE_BYTES = 32 << 20
_TAIL_BYTES = 1 << 16  # read at a time to find the end of the last line


def slice_file(source: Source, layout: Layout) -> list[tuple[int, int]]:
    """Slices of a file, about _SLICE_BYTES each; the lines that begin in a slice belong to it.

    A file is one slice where it is compressed, where fields may hold newlines, where lines do not
    end at the byte 10, and where it is a JSON document. The last slice ends before blank lines.
    """
    if not source.bytes:
        return []
    if layout.quote or layout.escape or source.bytes < 2 * _SLICE_BYTES:
        return [(0, -1)]
    with open_source(source.url) as raw:
        start = raw.read(START_BYTES)
    by_byte = ends_lines_by_byte(file_encoding(start, layout.encoding))
    document = layout.format == "jsonl" and is_document(start.removeprefix(_BOM))
    if document or file_codec(start, source.url) or not by_byte:
        return [(0, -1)]
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
    """The lines that begin in a slice, in order; of a JSON document, its records.

    Raises:
        InputError: the file is gone, or its compression is damaged.
    """
    line, most = part.first_line, layout.max_line_bytes
    is_json = layout.format == "jsonl"
    try:
        with open_source(part.url) as raw:
            pieces, encoding = _pieces(raw, part, layout.encoding)
            first = next(pieces, b"")
            pieces = chain([first], pieces)
            lines: Iterator[tuple[bytes, bool, bool]]
            if is_json and (part.start, part.end) == (0, -1) and is_document(first):
                lines = ((*one, False) for one in whole_records(pieces, most))
            else:
                lines = _whole_lines(pieces, most, part.ends_file, is_json)
            for data, too_long, goes_on in lines:
                if too_long:
                    batch = too_long_line(line, data)
                else:
                    batch = _batch(data, encoding, line, layout)
                line += batch.size - len(batch.joined) - goes_on
                yield batch
    except FileNotFoundError:
        raise InputError("was removed after the run was planned", where=part.url) from None


def _batch(data: bytes, encoding: str, first_line: int, layout: Layout) -> LineBatch:
    # Records are separated here where lines would be too long else; others when they are parsed.
    if layout.format != "jsonl" or len(data) <= layout.max_line_bytes:
        return decode_batch(data, encoding, first_line, layout.max_line_bytes)
    data, joined = separate_records(data)
    batch = decode_batch(data, encoding, first_line, layout.max_line_bytes)
    return replace(batch, joined=joined) if len(joined) else batch


def _pieces(raw: Any, part: FileSlice, configured: str) -> tuple[Iterator[bytes], str]:
    """The bytes of the lines of a slice, decompressed and without a BOM, and their encoding.

    Where lines do not end at the byte 10, all of the file is yielded, in UTF-8.
    """
    if part.start:
        return _lines_between(raw, b"", part.start, part.end), file_encoding(b"", configured)
    stream = decompressed(raw, part.url)
    first = stream.read(_READ_BYTES)
    encoding = file_encoding(first, configured)
    if ends_lines_by_byte(encoding):
        first = first.removeprefix(_BOM) if encoding == "utf-8" else first
        pieces = _lines_between(stream, first, 0, part.end)
    else:
        rest = iter(lambda: stream.read(_READ_BYTES), b"")
        pieces, encoding = _without_bom(in_utf8(chain([first], rest), encoding)), "utf-8"
    return pieces, encoding


def _without_bom(pieces: Iterator[bytes]) -> Iterator[bytes]:
    first = next((piece for piece in pieces if piece), b"")
    yield first.removeprefix(_BOM)
    yield from pieces


def _lines_between(stream: Any, first: bytes, start: int, end: int) -> Iterator[bytes]:
    """The bytes of the lines that begin in [start, end); all from `start` where end is -1.

    `first` are bytes that are read already, where `start` is 0.
    """
    position = max(0, start - 1)
    if position:
        stream.seek(position)
    inside = start > 0  # inside a line that began before the slice
    while data := first or stream.read(_READ_BYTES):
        first = b""
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
    stream: Iterator[bytes], most: int, ends_file: bool, joined: bool
) -> Iterator[tuple[bytes, bool, bool]]:
    """Runs of whole lines without the newline at their end.

    Newlines at the end of the data read so far are held back: at the end of the file they are
    blank lines, which do not count. Of a line longer than `most` bytes only the first MAX_RAW
    bytes are yielded.

    Args:
        stream: the bytes of the lines, in pieces.
        most: the longest line that is read whole, in bytes.
        ends_file: whether the file ends where the stream does.
        joined: whether a line may hold several JSON records; a longer line ends before one.

    Yields:
        The lines, whether they are one that is too long, and whether the last one goes on.
    """
    rest, long = b"", b""
    for data in stream:
        if long:
            newline = data.find(b"\n")
            if newline < 0:
                continue
            yield long, True, False
            long, data = b"", data[newline + 1 :]
            if not data:
                continue
        data = rest + data
        end = len(data.rstrip(b"\r\n"))
        newline = data.rfind(b"\n", 0, end)
        if newline >= 0:
            yield data[:newline], False, False
            data = data[newline + 1 :]
        rest = data
        if len(rest) > most:
            newline = rest.find(b"\n")
            if newline >= 0:  # more than `most` bytes of blank lines
                yield rest[:newline], False, False
                rest = rest[newline + 1 :]
            elif joined and (start := last_join(rest)):
                yield rest[:start], False, True
                rest = rest[start:]
            else:
                long, rest = rest[:MAX_RAW], b""
    if long:
        yield long, True, False
    rest = rest.rstrip(b"\r\n") if ends_file else rest
    if rest:
        yield rest.removesuffix(b"\n"), False, False
