"""Values of columns, whatever type the file stores them in.

Whether a value is accepted never depends on the other values of the column.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

__all__ = [
    "Floats",
    "Ints",
    "Mask",
    "is_text",
    "null_unless",
    "plain_values",
    "to_numpy",
    "try_cast",
]

_BYTES = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view)
_HEX_DIGITS = np.frombuffer(b"0123456789abcdef", np.uint8)
_UUID_WIDTH = 36
_UUID_DIGITS = np.setdiff1d(np.arange(_UUID_WIDTH), [8, 13, 18, 23])  # between the dashes
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


def plain_values(column: pa.Array) -> pa.Array:
    """A column with its text as strings and its dictionaries and extension types resolved, [N].

    Text is null where it is not UTF-8; UUIDs are their usual text; other types stay.
    """
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if isinstance(column.type, pa.BaseExtensionType):
        is_uuid, column = isinstance(column.type, pa.UuidType), column.storage
        if is_uuid:
            return _uuid_text(column)
        return plain_values(column)
    kind = column.type
    if pa.types.is_string(kind):
        return _valid_utf8(column)
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return _valid_utf8(column.cast(pa.string()))
    if any(test(kind) for test in _BYTES):
        return try_cast(column.cast(pa.binary()), pa.string())
    return column


def _uuid_text(storage: pa.Array) -> pa.Array:
    """UUIDs of 16 bytes as text: five groups of hexadecimal digits, with dashes."""
    rows = len(storage)
    start = storage.offset * 16
    data = np.frombuffer(storage.buffers()[1], np.uint8)[start : start + rows * 16]
    digits = np.empty((rows, 32), np.uint8)
    digits[:, 0::2] = _HEX_DIGITS[data.reshape(rows, 16) >> 4]
    digits[:, 1::2] = _HEX_DIGITS[data.reshape(rows, 16) & 15]
    text = np.full((rows, _UUID_WIDTH), ord("-"), np.uint8)
    text[:, _UUID_DIGITS] = digits
    ends = pa.py_buffer(np.arange(rows + 1, dtype=np.int32) * _UUID_WIDTH)
    texts = pa.StringArray.from_buffers(rows, ends, pa.py_buffer(text))
    return null_unless(texts, storage.is_valid()) if storage.null_count else texts


def is_text(kind: pa.DataType) -> bool:
    """Whether the type is a string."""
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def try_cast(column: pa.Array, kind: pa.DataType) -> pa.Array:
    """A cast that gives null where a value cannot be cast.

    It finds these by bisection, which is slow where there are many: filter them out before.
    """
    try:
        return column.cast(kind)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        if len(column) <= 1:
            return pa.nulls(len(column), kind)
    middle = len(column) // 2
    halves = [try_cast(column.slice(0, middle), kind), try_cast(column.slice(middle), kind)]
    return pa.concat_arrays(halves)


def null_unless(column: pa.Array, mask: pa.Array) -> pa.Array:
    """The column with null where the mask is not true."""
    return pc.if_else(mask, column, pa.scalar(None, column.type))


def to_numpy(column: pa.Array) -> npt.NDArray[Any]:
    """The values as a numpy array, copied where needed."""
    return column.to_numpy(zero_copy_only=False)  # type: ignore[no-any-return]


def _valid_utf8(column: pa.Array) -> pa.Array:
    """The strings, null where they are not UTF-8, which Parquet files may hold."""
    try:
        column.validate(full=True)
    except pa.ArrowInvalid:
        return try_cast(column.cast(pa.binary()), pa.string())
    return column
