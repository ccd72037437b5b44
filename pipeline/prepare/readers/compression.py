"""Compressed streams, by the ending of a file's name."""

from __future__ import annotations

import bz2
import lzma
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow as pa

from embedmill.pipeline.errors import InputError

__all__ = ["CODECS", "codec_of", "opened", "without_codec"]

CODECS = {
    ".gz": "gzip", ".gzip": "gzip", ".zst": "zstd", ".zstd": "zstd", ".bz2": "bz2",
    ".lz4": "lz4", ".xz": "xz",
}  # fmt: skip
_OTHERS = (".snappy", ".sz", ".lzo", ".zip", ".7z", ".rar", ".br", ".tar", ".tgz", ".z")


def codec_of(url: str) -> str:
    """How a file is compressed; empty where it is not.

    Raises:
        InputError: in a way that is not read here.
    """
    name = url.lower()
    for ending, codec in CODECS.items():
        if name.endswith(ending):
            return codec
    if name.endswith(_OTHERS):
        raise InputError(
            "is compressed in a way that is not read",
            where=url,
            todo=f"Compress it anew as one of {', '.join(dict.fromkeys(CODECS.values()))}",
        )
    return ""


def without_codec(url: str) -> str:
    """The name without the ending of its compression."""
    name = url.lower()
    return next((name.removesuffix(e) for e in CODECS if name.endswith(e)), name)


@contextmanager
def opened(raw: Any, url: str) -> Iterator[Any]:
    """The decompressed bytes of a file that is open; its damage is told as an InputError."""
    codec = codec_of(url)
    if not codec:
        yield raw
        return
    yield _Decompressed(_STREAMS[codec](raw), codec, url)


def _arrow(codec: str) -> Callable[[Any], Any]:
    return lambda raw: pa.CompressedInputStream(pa.PythonFile(raw, mode="r"), codec)


# Arrow's bz2 stops at the end of the first of several streams; it has no xz.
_STREAMS: dict[str, Callable[[Any], Any]] = {
    "gzip": _arrow("gzip"),
    "zstd": _arrow("zstd"),
    "lz4": _arrow("lz4"),
    "bz2": bz2.BZ2File,
    "xz": lzma.LZMAFile,
}


class _Decompressed:
    def __init__(self, stream: Any, codec: str, url: str) -> None:
        self._stream = stream
        self._codec = codec
        self._url = url

    def read(self, size: int) -> bytes:
        """At most so many bytes; none at the end."""
        try:
            return bytes(self._stream.read(size))
        except (OSError, EOFError, lzma.LZMAError) as error:
            raise InputError(
                f"its {self._codec} compression is damaged: {error}",
                where=self._url,
                todo="Get the file again",
            ) from None
