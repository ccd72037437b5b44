"""Formats of word2vec (Mikolov et al. 2013): a word and its vector, as text or binary.

A space ends a word and a newline ends a line, so a word can hold neither. White space, control
characters and percent signs of an id are percent-encoded; `urllib.parse.unquote` gives the id
back.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pyarrow as pa

from embedmill.pipeline.errors import InputError
from embedmill.pipeline.formats.line_writer import NUMBERS, join_numbers, write_lines
from embedmill.pipeline.formats.vector_table import NumberBlock, VectorTable

__all__ = ["word2vec", "word2vec_binary"]

_ENCODED = re.compile(r"[\s%\x00-\x1f\x7f-\x9f]")


def word2vec(table: VectorTable, folder: Path) -> None:
    """Write `SIDE.txt`, for gensim's `KeyedVectors.load_word2vec_format(path)`."""
    with (folder / f"{table.side}.txt").open("wb") as raw:
        raw.write(f"{table.count} {table.dim}\n".encode())
        for block in (piece for whole in table.blocks() for piece in whole.pieces(NUMBERS)):
            words = pa.array(_words(block), pa.string())
            write_lines(raw, [words, join_numbers(block.vector_ND, " ")], " ")


def word2vec_binary(table: VectorTable, folder: Path) -> None:
    """Write `SIDE.bin`, for `load_word2vec_format(path, binary=True)`: float32 after each word."""
    with (folder / f"{table.side}.bin").open("wb") as raw:
        raw.write(f"{table.count} {table.dim}\n".encode())
        for block in table.blocks():
            vector_ND = np.ascontiguousarray(block.vector_ND, "<f4")
            pairs = zip(_words(block), vector_ND, strict=True)
            raw.write(b"".join(b"%b %b\n" % (w.encode(), v.tobytes()) for w, v in pairs))


def _words(block: NumberBlock) -> list[str]:
    return [_word(raw_id) for raw_id in block.ids.to_pylist()]


def _word(raw_id: str) -> str:
    if not raw_id:
        raise InputError(
            f"the id {json.dumps(raw_id)} is empty, and word2vec has no empty words",
            todo="Choose another format",
        )
    return _ENCODED.sub(lambda match: quote(match[0]), raw_id)
