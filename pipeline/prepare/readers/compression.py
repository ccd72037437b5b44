"""Compressed files, recognised by the end of their names."""

from __future__ import annotations

import bz2
import lzma
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow as pa

from embedmill.pipeline.errors import InputError

__all__ = ["CODECS", "codec_of", "decompressed", "without_codec"]

CODECS = {
    ".gz": "gzip", ".gzip": "gzip", ".zst": "zstd", ".zstd": "zstd", ".bz2": "bz2",
    ".lz4": "lz4", ".xz": "xz",
}  # fmt: skip
_UNSUPPORTED = (".snappy", ".sz", ".lzo", ".zip", ".7z", ".rar", ".br", ".tar", ".tgz", ".z")


def codec_of(url: str) -> str:
    """The codec that a file is compressed with; empty where it is not compressed.

    Raises:
        InputError: the codec is not supported.
    """
    name = url.lower()
    for extension, codec in CODECS.items():
        if name.endswith(extension):
            return codec
    if name.endswith(_UNSUPPORTED):
        raise InputError(
            "its compression is not supported",
            where=url,
            todo=f"Compress it anew as one of {', '.join(dict.fromkeys(CODECS.values()))}",
        )
    return ""


def without_codec(url: str) -> str:
    """The lower-case name without the extension of its compression."""
    name = url.lower()
    return next((name.removesuffix(e) for e in CODECS if name.endswith(e)), name)


@contextmanager
def decompressed(raw: Any, url: str) -> Iterator[Any]:
    """The decompressed bytes of an open file; reading raises InputError where it is damaged."""
    codec = codec_of(url)
    if not codec:
        yield raw
        return
    yield _Decompressed(_STREAMS[codec](raw), codec, url)


def _arrow(codec: str) -> Callable[[Any], Any]:
    return lambda raw: pa.CompressedInputStream(pa.PythonFile(raw, mode="r"), codec)


# Not Arrow's bz2, which stops after the first of several concatenated streams; it has no xz.
_STREAMS: dict[str, Callable[[Any], Any]] = {
    "gzip": _arrow("gzip"),
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
        except (OSError, EOFError, lzma.LZMAError) as error:
            raise InputError(
                f"its {self._codec} compression is damaged: {error}",
                where=self._url,
                todo="Get the file again",
            ) from None
