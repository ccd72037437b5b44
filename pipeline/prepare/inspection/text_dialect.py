"""How a text file seems to be written: encoding, separator, quotes, escapes, header."""

from __future__ import annotations

import codecs
import csv
import io
import re
from dataclasses import dataclass
from itertools import islice

from embedmill.pipeline.errors import InputError
from embedmill.pipeline.prepare.readers.compression import decompressed
from embedmill.pipeline.prepare.readers.encodings import file_encoding
from embedmill.pipeline.store.sources import open_source

__all__ = ["Dialect", "file_start", "has_header", "is_marked", "text_dialect", "text_encoding"]

_START_BYTES = 1 << 18
_LINES = 200
_SEPARATORS = (",", "\t", ";", "|", "::", "\x01", " ")
_NUMBER = re.compile(r"^[+-]?[0-9]+([.,][0-9]+)?([eE][+-]?[0-9]+)?$|^[0-9]{2,4}[-/.][0-9]{2}")

# A backslash before a quote that does not end its field; a doubled quote inside a field; without
# quotes, a backslash before a separator or at the end of a line.
_QUOTE_ESCAPED = re.compile(r'\\"[^,;|\t\r\n]')
_QUOTE_DOUBLED = re.compile(r'[^,;|\t\r\n\\"]""[^,;|\t\r\n"]')
_FIELD_ESCAPED = re.compile(r"\\(?:[\t|;]|\r?$)", re.MULTILINE)


@dataclass(frozen=True)
class Dialect:
    """How delimited text is written.

    Attributes:
        separator: between fields.
        quoted: whether fields are in double quotes.
        escape: before a quote inside a field; empty where quotes are doubled, or not there.
        rows: fields of the first lines.
    """

    separator: str
    quoted: bool
    escape: str
    rows: list[list[str]]


def file_start(url: str) -> bytes:
    """The first bytes of a file, decompressed; without its last, unfinished line."""
    with open_source(url) as raw:
        stream = decompressed(raw, url)
        start = bytes(stream.read(_START_BYTES))
    return start


def text_encoding(start: bytes) -> str:
    """The encoding of a text, by Python's name: by its mark, by its zero bytes, or as it decodes.

    Text that is no Unicode is taken for cp1252 or Latin-1, which any bytes may be.
    """
    if is_marked(start):
        return file_encoding(start[:4], "utf-8")
    for width, name in ((4, "utf-32"), (2, "utf-16")):
        if _is_wide(start, width, 0) or _is_wide(start, width, width - 1):
            return name  # readers tell the order of its bytes
    try:
        codecs.getincrementaldecoder("utf-8")().decode(start)
    except UnicodeDecodeError:
        has_c1 = any(0x80 <= byte < 0xA0 for byte in start)
        return "cp1252" if has_c1 and _decodes(start, "cp1252") else "latin-1"
    return "utf-8"


def is_marked(start: bytes) -> bool:
    """Whether a text begins with a byte-order mark, by which readers know its encoding."""
    return start.startswith(codecs.BOM_UTF8) or file_encoding(start[:4], "utf-8") != "utf-8"


def _is_wide(start: bytes, width: int, kept: int) -> bool:
    """Whether most characters have their one byte at a position among `width` bytes, others 0."""
    whole = start[: len(start) // width * width][:4096]
    if len(whole) < width:
        return False
    zeros = [whole[position::width].count(0) for position in range(width)]
    characters = len(whole) // width
    return all(
        zero <= characters * 0.1 if position == kept else zero >= characters * 0.6
        for position, zero in enumerate(zeros)
    )


def _decodes(start: bytes, encoding: str) -> bool:
    try:
        codecs.getincrementaldecoder(encoding)().decode(start)
    except UnicodeDecodeError:
        return False
    return True


def text_dialect(text: str, *, needs_separator: bool = True) -> Dialect:
    """How the lines of a text are written.

    The separator is the one that most lines have equally often, outside of quotes.

    Args:
        text: the first lines of a file.
        needs_separator: false where a line may be one field.

    Raises:
        InputError: no separator is in most lines.
    """
    quoted = re.search(r'(^|[,;|\t:])"', text, re.MULTILINE) is not None
    escape = "\\" if _is_escaped(text, quoted=quoted) else ""
    found = []
    for order, separator in enumerate(_SEPARATORS):
        rows = _rows(text, separator, quoted, escape)
        widths = [len(row) for row in rows] or [1]
        width = max(set(widths), key=widths.count, default=1)
        if width > 1 or not needs_separator:
            found.append((width > 1, widths.count(width) / len(widths), -order, separator, rows))
    if not found:
        raise InputError("has no separator that is in most of its lines")
    *_, separator, rows = max(found, key=lambda one: one[:3])
    return Dialect(separator, quoted, escape, rows)


def _is_escaped(text: str, *, quoted: bool) -> bool:
    if not quoted:
        return _FIELD_ESCAPED.search(text) is not None
    return len(_QUOTE_ESCAPED.findall(text)) > len(_QUOTE_DOUBLED.findall(text))


def _rows(text: str, separator: str, quoted: bool, escape: str) -> list[list[str]]:
    if len(separator) > 1 or not quoted:
        lines = (line for line in text.splitlines() if line)
        return [line.split(separator) for line in islice(lines, _LINES)]
    reader = csv.reader(
        io.StringIO(text, newline=""),
        delimiter=separator,
        escapechar=escape or None,
        doublequote=not escape,
    )
    try:
        return [row for row in islice(reader, _LINES) if row]
    except csv.Error:
        return []


def has_header(rows: list[list[str]], known_names: int) -> bool:
    """Whether the first row names the columns.

    Args:
        rows: fields of the first lines.
        known_names: how many of the first row's fields are names that columns of logs have.
    """
    if not rows:
        return True
    first = rows[0]
    if any(_NUMBER.match(field.strip()) for field in first) or len(set(first)) < len(first):
        return False
    if known_names or len(rows) == 1:
        return True
    below = rows[1:]
    for column, name in enumerate(first):
        values = [row[column] for row in below if column < len(row)]
        if values and all(_NUMBER.match(value) for value in values):
            return True
        if name in values:
            return False
    return True
