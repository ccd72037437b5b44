"""Encodings of text files: by their byte-order mark or the config, and bytes turned into UTF-8."""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Iterator

__all__ = ["ends_lines_by_byte", "file_encoding", "in_utf8"]

# UTF-32 first: its mark begins with that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_UNICODE = ("utf-8", "utf-16", "utf-32")
# Stands for bytes that cannot be decoded; no UTF-8 has it, so that its line is rejected.
_UNDECODABLE = "\udcff"
_ERRORS = "embedmill.undecodable"


def _mark_undecodable(error: UnicodeError) -> tuple[str | bytes, int]:
    assert isinstance(error, UnicodeDecodeError)
    return _UNDECODABLE, error.end


codecs.register_error(_ERRORS, _mark_undecodable)


def file_encoding(start: bytes, configured: str) -> str:
    """The encoding of a file, by Python's name.

    A byte-order mark of UTF-16 or UTF-32 comes before the config, unless this names an encoding
    that is no Unicode. Without a mark, UTF-16 and UTF-32 have the byte order in which the first
    character is of the Latin scripts; little-endian if neither is.

    Args:
        start: the first bytes of the file, decompressed; four are enough.
        configured: Python's name of the encoding that the config has.
    """
    if not configured.startswith(_UNICODE):
        return configured
    marked = next((name for mark, name in _MARKS if start.startswith(mark)), "")
    if marked:
        return marked
    if configured in ("utf-16", "utf-32"):
        return f"{configured}-{'be' if start[:1] == bytes(1) else 'le'}"
    return "utf-8" if configured == "utf-8-sig" else configured


def ends_lines_by_byte(encoding: str) -> bool:
    """Whether lines end at the byte 10, so that bytes can be cut into lines before decoding.

    Not so in UTF-16, UTF-32 and EBCDIC.
    """
    return encoding == "utf-8-sig" or "\n".encode(encoding) == b"\n"


def in_utf8(pieces: Iterable[bytes], encoding: str) -> Iterator[bytes]:
    """The text in UTF-8; where it cannot be decoded, bytes that are no UTF-8."""
    decoder = codecs.getincrementaldecoder(encoding)(_ERRORS)
    for piece in pieces:
        yield decoder.decode(piece).encode("utf-8", "surrogatepass")
    yield decoder.decode(b"", final=True).encode("utf-8", "surrogatepass")
