"""Values of columns as text and as numbers, whatever type a file has them in.

Whether a value is accepted never depends on its neighbours.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from embedmill.pipeline.errors import InputError

__all__ = ["Mask", "as_array", "as_numbers", "as_text", "is_text", "try_cast"]

# What Arrow reads as a float: the same for a column at once and for each value alone.
_FLOAT = (
    r"^[+-]?(?:(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?"
    r"|[iI][nN][fF](?:[iI][nN][iI][tT][yY])?|[nN][aA][nN](?:\([A-Za-z0-9_]*\))?)$"
)
Mask = npt.NDArray[np.bool_]


def as_text(column: pa.Array, name: str) -> pa.Array:
    """A column as strings; whole numbers in decimal, null where there is none.

    Raises:
        InputError: the type cannot be an id.
    """
    column = plain(column)
    kind = column.type
    if pa.types.is_string(kind):
        return _valid(column)
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return _valid(column.cast(pa.string()))
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return try_cast(column.cast(pa.binary()), pa.string())
    if pa.types.is_integer(kind) or pa.types.is_null(kind):
        return column.cast(pa.string())
    if pa.types.is_floating(kind):  # whole numbers beside nulls, as pandas writes them
        values = as_array(column.cast(pa.float64()))
        whole = np.isfinite(values) & (np.abs(values) < 2**53) & (np.floor(values) == values)
        numbers = pa.array(np.where(whole, values, 0).astype(np.int64), mask=~whole)
        return numbers.cast(pa.string())
    raise InputError(f"column '{name}' is {kind}; ids are strings or whole numbers")


def as_numbers(column: pa.Array, name: str) -> tuple[npt.NDArray[np.float64], Mask]:
    """Values as floats, and where there is one.

    Raises:
        InputError: the type cannot be a number.
    """
    column = plain(column)
    kind = column.type
    if is_text(kind):
        numbers = _parsed(column)
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
    known = as_array(numbers.is_valid()).astype(bool)
    return as_array(numbers.fill_null(0.0)), known


def is_text(kind: pa.DataType) -> bool:
    """Whether the type is a string."""
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def plain(column: pa.Array) -> pa.Array:
    """The column without a dictionary."""
    return column.dictionary_decode() if pa.types.is_dictionary(column.type) else column


def try_cast(column: pa.Array, kind: pa.DataType) -> pa.Array:
    """A cast that gives null where a value cannot be cast; halves the array to find those.

    Slow where many cannot: give it what can nearly always be cast.
    """
    try:
        return column.cast(kind)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        if len(column) <= 1:
            return pa.nulls(len(column), kind)
    middle = len(column) // 2
    halves = [try_cast(column.slice(0, middle), kind), try_cast(column.slice(middle), kind)]
    return pa.concat_arrays(halves)


def only(column: pa.Array, mask: pa.Array) -> pa.Array:
    """The column with null where the mask is not true."""
    return pc.if_else(mask, column, pa.scalar(None, column.type))


def as_array(column: pa.Array) -> npt.NDArray[Any]:
    """Values as numpy has them."""
    return column.to_numpy(zero_copy_only=False)  # type: ignore[no-any-return]


def _valid(column: pa.Array) -> pa.Array:
    """Strings, with null for those that are not UTF-8: Parquet does not promise it."""
    try:
        column.validate(full=True)
    except pa.ArrowInvalid:
        return try_cast(column.cast(pa.binary()), pa.string())
    return column


def _parsed(column: pa.Array) -> pa.Array:
    """Text as floats; the pattern is asked only where not all of it is numbers."""
    try:
        return column.cast(pa.float64())
    except pa.ArrowInvalid:
        digits = as_array(pc.fill_null(pc.ascii_is_decimal(column), False)).astype(bool)
    # Most are digits alone, which is quicker to see than what the pattern says of the rest.
    rest = np.flatnonzero(~digits)
    others = pc.match_substring_regex(column.take(pa.array(rest)), _FLOAT)
    digits[rest] = as_array(pc.fill_null(others, False)).astype(bool)
    return try_cast(only(column, pa.array(digits)), pa.float64())
