"""Lines of text, put together by Arrow's kernels a piece at a time."""

from __future__ import annotations

from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

__all__ = ["NUMBERS", "joined", "replaced", "write_lines"]

# Of a piece: some 50 MB of text.
NUMBERS = 1 << 22


def joined(vector_ND: NDArray[Any], separator: str) -> pa.Array:
    """The numbers of each vector, as few digits as tell them from all others of their type."""
    count, dim = vector_ND.shape
    whole = vector_ND.dtype.kind == "i"
    flat = pa.array(vector_ND.reshape(-1) if whole else vector_ND.reshape(-1).astype(np.float32))
    texts = pc.cast(flat, pa.string())
    ends = pa.array(np.arange(count + 1, dtype=np.int32) * dim)
    return pc.binary_join(pa.ListArray.from_arrays(ends, texts), separator)


def replaced(texts: pa.Array, changes: dict[str, str]) -> pa.Array:
    """Texts with each key replaced by its value, in this order."""
    for old, new in changes.items():
        texts = pc.replace_substring(texts, old, new)
    return texts


def write_lines(raw: BinaryIO, columns: list[pa.Array], separator: str) -> None:
    """A line for each row, its columns side by side."""
    lines = pc.binary_join_element_wise(*columns, separator)
    lines = pc.binary_join_element_wise(lines, "", "\n")
    if len(lines):
        first, last = (
            np.frombuffer(lines.buffers()[1], np.int32)[lines.offset + at] for at in (0, len(lines))
        )
        raw.write(memoryview(lines.buffers()[2])[first:last])
