"""JSON documents: records of an array, or records that each take several lines.

`[{...}, {...}]` is what pandas, most databases and most HTTP interfaces write; jq and `json.dump`
with an indent write a record over several lines.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from embedmill.pipeline.prepare.parse.rejects import MAX_RAW

__all__ = ["is_document", "whole_records"]

# An array, but of no scalars; or a record of which the first line has but the opening brace.
_DOCUMENT = re.compile(rb"\s*(?:\[\s*(?:[{\[\]]|$)|\{[ \t]*\r?\n)")
# A string, which ends at its line where its quote is missing, or where the data ends.
_STRING = rb'"(?:[^"\\\n]|\\[^\n])*+(?:"|\\?\Z|(?=\n))'
# A brace with all that follows it before the next one.
_TOKEN = re.compile(rb'[{}](?:[^{}"]++|' + _STRING + rb")*+")
_BETWEEN_RECORDS = b" \t\r\n,[]"
# Blank in JSON, as a newline is, but no end of a line; not valid inside of a string either.
_NEWLINE_TO_TAB = bytes.maketrans(b"\n\r", b"\t\t")


def is_document(start: bytes) -> bool:
    """Whether a file is a document rather than JSON Lines, by its first bytes, decompressed."""
    return _DOCUMENT.match(start) is not None


def whole_records(stream: Iterator[bytes], most: int) -> Iterator[tuple[bytes, bool]]:
    """Runs of records, each on a line of its own.

    Anything else between records than blanks, commas and brackets is a line as well. A record
    that lacks a closing brace goes on to the end of the file.

    Args:
        stream: the bytes of a document, in pieces.
        most: the longest record that is read whole, in bytes.

    Yields:
        Records with newlines between them, and whether they are the start of one record that is
        too long, of which the first MAX_RAW bytes are yielded.
    """
    rest, long, depth = b"", b"", 0
    for piece in stream:
        data = rest + piece
        records, position, depth, last = _split(data, depth)
        if long and records:
            yield long, True
            long, records = b"", records[1:]
        if records:
            yield b"\n".join(records), False
        rest = data[position:]
        if len(rest) > most:
            long = long or _line(rest)[:MAX_RAW]
            if not depth:  # no record
                yield long, True
                long = rest = b""
        if long:
            # What follows the last brace is read again with what comes next.
            depth -= {b"{": 1, b"}": -1}.get(data[last : last + 1], 0)
            rest = data[last:]
        else:
            depth = 0  # the record is read again from its first brace
    if long:
        yield long, True
    elif ended := _line(rest):
        yield ended, False


def _split(data: bytes, depth: int) -> tuple[list[bytes], int, int, int]:
    """The records that end in some data.

    Args:
        data: from the start of a record or before it, or where `depth` is above 0 inside of one.
        depth: braces that are open at its start.

    Returns:
        The records, a line each; the position after the last of them; the braces that are open
        at the end; the position of the last brace.
    """
    records, position, last = list[bytes](), 0, 0
    for token in _TOKEN.finditer(data):
        last = token.start()
        if data[last] == ord("{"):
            if not depth and (other := _line(data[position:last])):
                records.append(other)
            position = position if depth else last
            depth += 1
        elif depth:
            depth -= 1
            if not depth:
                records.append(_line(data[position : last + 1]))
                position = last + 1
    return records, position, depth, last


def _line(text: bytes) -> bytes:
    """Text without what may stand between records, on one line."""
    return text.strip(_BETWEEN_RECORDS).translate(_NEWLINE_TO_TAB)
