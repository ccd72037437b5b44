"""Columns of numbers as NumPy arrays.

`to_numpy` of Arrow imports pandas, which takes each process half a second and 60 MB; the DLPack
protocol does not (arrow.apache.org/docs/python/dlpack.html).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from embedmill.pipeline.errors import ContractError

__all__ = ["numbers"]


def numbers(column: pa.ChunkedArray | pa.Array) -> NDArray[Any]:
    """The values of a column without nulls; of one chunk, not copied and read-only.

    Args:
        column: integers, floating-point numbers or booleans.

    Raises:
        ContractError: it holds a null.
    """
    if column.null_count:
        raise ContractError("a column of numbers has nulls")
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    if pa.types.is_boolean(column.type):  # a bit each
        return np.from_dlpack(column.cast(pa.uint8())).view(np.bool_)
    found: NDArray[Any] = np.from_dlpack(column)
    return found
