"""Lines of text files: decompressed, decoded, cut into chunks of whole lines.

A line ends at LF or CR LF. Blank lines at the end of a file are no lines.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import InputError
from pipeline.storage import open_source

__all__ = ["Chunk", "chunks", "decoded"]

_READ = 4 << 20
_BOM = codecs.BOM_UTF8
_CODECS = {".gz": "gzip", ".zst": "zstd", ".zstd": "zstd"}
# Their newline is not one byte, so their lines can only be cut after decoding.
_WIDE = ("utf-16", "utf-32")


@dataclass
class Chunk:
    """Whole lines of a file in UTF-8: `lines` (strings), the first having number `first`.

    `bad` are positions of lines that the encoding cannot decode (empty in `lines`), with
    their bytes.
    """

    first: int
    lines: pa.Array
    bad: dict[int, bytes] = field(default_factory=dict)

    @property
    def numbers(self) -> npt.NDArray[np.int64]:
        """Line numbers."""
        return np.arange(self.first, self.first + len(self.lines), dtype=np.int64)


def chunks(url: str, encoding: str) -> Iterator[Chunk]:
    """The lines of a file, in order.

    Raises:
        InputError: it is gone, or its compression is damaged.
    """
    first = 1
    for data in _whole_lines(_bytes(url, encoding)):
        inner = "utf-8" if encoding.startswith(_WIDE) else encoding
        chunk = decoded(data, inner, first)
        first += len(chunk.lines)
        yield chunk


def decoded(data: bytes, encoding: str, first: int) -> Chunk:
    """Lines of `data`, which has no newline at its end."""
    data = data.replace(b"\r\n", b"\n").removesuffix(b"\r")
    bad: dict[int, bytes] = {}
    try:
        plain = encoding == "utf-8" and data.isascii()
        text = data if plain else data.decode(encoding).encode()
    except UnicodeDecodeError:
        text, bad = _line_by_line(data, encoding)
    lines = pc.split_pattern(pa.array([text], pa.large_binary()), b"\n").flatten()
    return Chunk(first, _strings(lines), bad)


def _strings(lines: pa.Array) -> pa.Array:
    return lines.cast(pa.large_string()).cast(pa.string())


def _line_by_line(data: bytes, encoding: str) -> tuple[bytes, dict[int, bytes]]:
    good, bad = [], {}
    for position, line in enumerate(data.split(b"\n")):
        try:
            good.append(line.decode(encoding).encode())
        except UnicodeDecodeError:
            good.append(b"")
            bad[position] = line
    return b"\n".join(good), bad


def _bytes(url: str, encoding: str) -> Iterator[bytes]:
    """Decompressed bytes without a BOM; those of wide encodings come out as UTF-8."""
    wide = codecs.getincrementaldecoder(encoding)() if encoding.startswith(_WIDE) else None
    try:
        with open_source(url) as raw:
            stream, fresh = _decompressed(raw, url), True
            while data := stream.read(_READ):
                if wide is not None:
                    data = wide.decode(data).encode()
                yield data.removeprefix(_BOM) if fresh else data
                fresh = False
            if wide is not None:
                yield wide.decode(b"", final=True).encode()
    except FileNotFoundError:
        raise InputError("is gone since the run was planned", where=url) from None
    except UnicodeDecodeError as error:
        raise InputError(f"is not {encoding}: {error}", where=url) from None


def _decompressed(raw: Any, url: str) -> Any:
    for ending, codec in _CODECS.items():
        if url.endswith(ending):
            return _Decompressed(raw, codec, url)
    return raw


class _Decompressed:
    """A compressed stream whose damage is told as an InputError."""

    def __init__(self, raw: Any, codec: str, url: str) -> None:
        self._stream = pa.CompressedInputStream(pa.PythonFile(raw, mode="r"), codec)
        self._codec = codec
        self._url = url

    def read(self, size: int) -> bytes:
        """At most so many bytes; none at the end."""
        try:
            return bytes(self._stream.read(size))
        except OSError as error:
            raise InputError(
                f"its {self._codec} compression is damaged: {error}",
                where=self._url,
                todo="Get the file again",
            ) from None


def _whole_lines(stream: Iterator[bytes]) -> Iterator[bytes]:
    """Pieces that hold whole lines, without the newline at their end.

    Newlines at the end of a piece are kept back: if nothing follows, they are no lines.
    """
    rest = b""
    for data in stream:
        data = rest + data
        end = len(data.rstrip(b"\r\n"))
        cut = data.rfind(b"\n", 0, end)
        if cut < 0:
            rest = data
            continue
        yield data[:cut]
        rest = data[cut + 1 :]
    rest = rest.rstrip(b"\r\n")
    if rest:
        yield rest
