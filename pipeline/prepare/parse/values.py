"""Values of columns as text and as numbers, whatever type the file stores them in.

Whether a value is accepted never depends on the other values of the column.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from embedmill.pipeline.errors import InputError

__all__ = [
    "Ints",
    "Mask",
    "as_numbers",
    "as_text",
    "decode_dictionary",
    "is_text",
    "null_unless",
    "to_numpy",
    "try_cast",
]

# What Arrow's cast accepts as a float, so that single values are accepted as whole columns are.
_FLOAT = (
    r"^[+-]?(?:(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?"
    r"|[iI][nN][fF](?:[iI][nN][iI][tT][yY])?|[nN][aA][nN](?:\([A-Za-z0-9_]*\))?)$"
)
Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


def as_text(column: pa.Array, name: str) -> pa.Array:
    """A column as strings, [N]; null where there is no value or it is not UTF-8.

    Whole numbers are written in decimal; other numbers are null.

    Raises:
        InputError: the type cannot be an id.
    """
    column = decode_dictionary(column)
    kind = column.type
    if pa.types.is_string(kind):
        return _valid_utf8(column)
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return _valid_utf8(column.cast(pa.string()))
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return try_cast(column.cast(pa.binary()), pa.string())
    if pa.types.is_integer(kind) or pa.types.is_null(kind):
        return column.cast(pa.string())
    if pa.types.is_floating(kind):  # pandas stores whole numbers with nulls as floats
        values = to_numpy(column.cast(pa.float64()))
        whole = np.isfinite(values) & (np.abs(values) < 2**53) & (np.floor(values) == values)
        numbers = pa.array(np.where(whole, values, 0).astype(np.int64), mask=~whole)
        return numbers.cast(pa.string())
    raise InputError(f"column '{name}' is {kind}; ids are strings or whole numbers")


def as_numbers(column: pa.Array, name: str) -> tuple[npt.NDArray[np.float64], Mask]:
    """Values as floats, [N], and a mask of where there is one, [N].

    Raises:
        InputError: the type cannot be a number.
    """
    column = decode_dictionary(column)
    kind = column.type
    if is_text(kind):
        numbers = _parse_floats(column)
    elif pa.types.is_boolean(kind):
        numbers = column.cast(pa.int8()).cast(pa.float64())
    elif (
        pa.types.is_integer(kind)
        or pa.types.is_floating(kind)
        or pa.types.is_decimal(kind)
        or pa.types.is_null(kind)
    ):
        numbers = column.cast(pa.float64(), safe=False)
    else:
        raise InputError(f"column '{name}' is {kind}; a number is needed")
    known = to_numpy(numbers.is_valid()).astype(bool)
    return to_numpy(numbers.fill_null(0.0)), known


def is_text(kind: pa.DataType) -> bool:
    """Whether the type is a string."""
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def decode_dictionary(column: pa.Array) -> pa.Array:
    """The column's values where it is dictionary-encoded, else the column."""
    return column.dictionary_decode() if pa.types.is_dictionary(column.type) else column


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


def _parse_floats(column: pa.Array) -> pa.Array:
    """Text as floats, null where it is no number."""
    try:
        return column.cast(pa.float64())
    except pa.ArrowInvalid:
        digits = to_numpy(pc.fill_null(pc.ascii_is_decimal(column), False)).astype(bool)
    # Most values are digits only, which is quicker to check than the regular expression.
    rest = np.flatnonzero(~digits)
    others = pc.match_substring_regex(column.take(pa.array(rest)), _FLOAT)
    digits[rest] = to_numpy(pc.fill_null(others, False)).astype(bool)
    return try_cast(null_unless(column, pa.array(digits)), pa.float64())
