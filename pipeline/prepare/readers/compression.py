"""Compressed files, recognised by their first bytes; by the end of their names before."""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Callable
from typing import Any

import pyarrow as pa

from embedmill.pipeline.errors import InputError

__all__ = ["CODECS", "START_BYTES", "codec_of", "decompressed", "file_codec", "without_codec"]

START_BYTES = 16  # of a file, which tell its codec
_INPUT_BYTES = 1 << 18  # compressed bytes read at a time

CODECS = {
    ".gz": "gzip", ".gzip": "gzip", ".zst": "zstd", ".zstd": "zstd", ".bz2": "bz2",
    ".lz4": "lz4", ".xz": "xz",
}  # fmt: skip
_UNSUPPORTED = (".snappy", ".sz", ".lzo", ".zip", ".7z", ".rar", ".br", ".tar", ".tgz", ".z")
_SKIPPABLE = [bytes([first]) + b"\x2a\x4d\x18" for first in range(0x50, 0x60)]
_MAGIC = {
    b"\x1f\x8b": "gzip",
    b"\x28\xb5\x2f\xfd": "zstd",
    **dict.fromkeys(_SKIPPABLE, "zstd"),
    b"\x04\x22\x4d\x18": "lz4",
    b"\xfd7zXZ\0": "xz",
    b"BZh": "bz2",
}
_BZ2_BLOCKS = (b"1AY&SY", b"\x17\x72\x45\x38\x50\x90")  # the first one, or the end
# Of zip, 7-Zip, compress, and snappy's frames.
_UNSUPPORTED_MAGIC = (b"PK\x03\x04", b"7z\xbc\xaf\x27\x1c", b"\x1f\x9d", b"\xff\x06\0\0sNaPpY")


def codec_of(url: str) -> str:
    """The codec that the name of a file tells; empty where it tells none.

    Raises:
        InputError: the codec is not supported.
    """
    name = url.lower()
    for extension, codec in CODECS.items():
        if name.endswith(extension):
            return codec
    if name.endswith(_UNSUPPORTED):
        raise _unsupported(url)
    return ""


def _unsupported(url: str) -> InputError:
    return InputError(
        "its compression is not supported",
        where=url,
        todo=f"Compress it anew as one of {', '.join(dict.fromkeys(CODECS.values()))}",
    )


def without_codec(url: str) -> str:
    """The lower-case name without the extension of its compression."""
    name = url.lower()
    return next((name.removesuffix(e) for e in CODECS if name.endswith(e)), name)


def file_codec(start: bytes, url: str) -> str:
    """The codec of a file, by its first START_BYTES bytes; empty where it is not compressed.

    Text is text, whatever its name says. Other bytes are of the codec that the name says, and
    damaged.

    Raises:
        InputError: the codec is not supported.
    """
    for magic, codec in _MAGIC.items():
        if start.startswith(magic) and (codec != "bz2" or start[4:10] in _BZ2_BLOCKS):
            return codec
    if start.startswith(_UNSUPPORTED_MAGIC):
        raise _unsupported(url)
    is_text = all(byte >= ord(" ") or byte in b"\t\r\n" for byte in start)
    return "" if is_text else codec_of(url)


def decompressed(raw: Any, url: str) -> Any:
    """The decompressed bytes of an open file; reading raises InputError where it is damaged."""
    codec = file_codec(raw.read(START_BYTES), url)
    raw.seek(0)
    return _Decompressed(_STREAMS[codec](raw), codec, url) if codec else raw


class _GzipMembers:
    """The bytes of gzip members one after the other; zeros may follow them, as gzip(1) has it."""

    def __init__(self, raw: Any) -> None:
        self._raw = raw
        self._input = b""
        self._member: Any = None

    def read(self, size: int) -> bytes:
        """As many bytes as asked for; fewer at the end."""
        parts, left = [], size
        while left:
            self._input = self._input or self._raw.read(_INPUT_BYTES)
            at_end = not self._input
            if self._member is None:
                self._input = self._input.lstrip(b"\0")
                if at_end:
                    break
                if not self._input:
                    continue
                self._member = zlib.decompressobj(wbits=31)
            data = self._member.decompress(self._input, left)
            self._input = self._member.unconsumed_tail
            if self._member.eof:
                self._input, self._member = self._member.unused_data, None
            elif at_end and not data:
                raise EOFError("it ends too early")
            parts.append(data)
            left -= len(data)
        return b"".join(parts)


def _arrow(codec: str) -> Callable[[Any], Any]:
    return lambda raw: pa.CompressedInputStream(pa.PythonFile(raw, mode="r"), codec)


# Not Arrow's bz2, which stops after the first of several concatenated streams; it has no xz.
_STREAMS: dict[str, Callable[[Any], Any]] = {
    "gzip": _GzipMembers,
    "zstd": _arrow("zstd"),
    "lz4": _arrow("lz4"),
    "bz2": bz2.BZ2File,
    "xz": lzma.LZMAFile,
}


class _Decompressed:
    """A stream whose errors say which file is damaged."""

    def __init__(self, stream: Any, codec: str, url: str) -> None:
        self._stream = stream
        self._codec = codec
        self._url = url

    def read(self, size: int) -> bytes:
        """At most `size` bytes; none at the end."""
        try:
            return bytes(self._stream.read(size))
        except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:
            raise InputError(
                f"its {self._codec} compression is damaged: {error}",
                where=self._url,
                todo="Get the file again",
            ) from None
