"""Lines of text from Arrow columns, a piece at a time."""

from __future__ import annotations

from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

__all__ = ["NUMBERS", "escape", "join_numbers", "write_lines"]

# Numbers of a piece: about 50 MB of text.
NUMBERS = 1 << 22


def join_numbers(vector_ND: NDArray[Any], separator: str) -> pa.Array:
    """The numbers of each vector as text, in the fewest digits that read back the same."""
    count, dim = vector_ND.shape
    integers = vector_ND.dtype.kind == "i"
    flat = pa.array(vector_ND.reshape(-1) if integers else vector_ND.reshape(-1).astype(np.float32))
    texts = pc.cast(flat, pa.string())
    ends = pa.array(np.arange(count + 1, dtype=np.int32) * dim)
    return pc.binary_join(pa.ListArray.from_arrays(ends, texts), separator)


def escape(texts: pa.Array, escapes: dict[str, str]) -> pa.Array:
    """Texts with each key of `escapes` replaced by its value, one after another."""
    for old, new in escapes.items():
        texts = pc.replace_substring(texts, old, new)
    return texts


def write_lines(raw: BinaryIO, columns: list[pa.Array], separator: str) -> None:
    """Write a line for each row, its columns joined by the separator."""
    lines = pc.binary_join_element_wise(*columns, separator)
    lines = pc.binary_join_element_wise(lines, "", "\n")
    if len(lines):
        first, last = (
            np.frombuffer(lines.buffers()[1], np.int32)[lines.offset + at] for at in (0, len(lines))
        )
        raw.write(memoryview(lines.buffers()[2])[first:last])
