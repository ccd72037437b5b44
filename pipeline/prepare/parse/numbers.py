"""Values of columns as floats, and as text for those who read no type."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from embedmill.pipeline.errors import InputError
from embedmill.pipeline.prepare.parse.ids import id_text
from embedmill.pipeline.prepare.parse.mixed import Column, parts_of
from embedmill.pipeline.prepare.parse.values import (
    Floats,
    Mask,
    is_text,
    null_unless,
    plain_values,
    to_numpy,
    try_cast,
)

__all__ = ["as_numbers", "as_plain_text"]

# What Arrow's cast accepts as a float, so that single values are accepted as whole columns are.
_FLOAT = (
    r"^[+-]?(?:(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?"
    r"|[iI][nN][fF](?:[iI][nN][iI][tT][yY])?|[nN][aA][nN](?:\([A-Za-z0-9_]*\))?)$"
)
_BOOLEANS = {"true": "1", "false": "0"}  # in upper and lower case


def as_numbers(column: Column, name: str, *, booleans: bool = False) -> tuple[Floats, Mask]:
    """Values as floats, [N], and a mask of where there is one, [N].

    Args:
        column: [N].
        name: of the column, for errors.
        booleans: whether true and false are 1 and 0, whatever their type; else they are none.

    Raises:
        InputError: the type cannot be a number.
    """
    first, *others = [
        _floats(plain_values(part), name, booleans=booleans) for part in parts_of(column)
    ]
    numbers = pc.coalesce(first, *others) if others else first
    known = to_numpy(numbers.is_valid()).astype(bool)
    return to_numpy(numbers.fill_null(0.0)), known


def as_plain_text(column: Column) -> pa.Array:
    """Values as text, [N]: whole numbers as digits, times in ISO form; null where there is none."""
    first, *others = [_plain_text(plain_values(part)) for part in parts_of(column)]
    return pc.coalesce(first, *others) if others else first


def _plain_text(column: pa.Array) -> pa.Array:
    kind = column.type
    if pa.types.is_timestamp(kind):
        zone = "UTC" if kind.tz else None
        return column.cast(pa.timestamp("us", zone), safe=False).cast(pa.string())
    if pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return pc.coalesce(id_text(column, "").text, column.cast(pa.string()))
    return id_text(column, "").text


def _floats(column: pa.Array, name: str, *, booleans: bool) -> pa.Array:
    """Numbers of one type as float64, null where there is none."""
    kind = column.type
    if is_text(kind):
        return _parse_floats(column, booleans=booleans)
    if pa.types.is_boolean(kind):
        if not booleans:
            return pa.nulls(len(column), pa.float64())
        return column.cast(pa.int8()).cast(pa.float64())
    if any(test(kind) for test in _NUMBERS):
        return column.cast(pa.float64(), safe=False)
    raise InputError(f"column '{name}' is {kind}; a number is needed")


_NUMBERS = (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal, pa.types.is_null)


def _parse_floats(column: pa.Array, *, booleans: bool) -> pa.Array:
    """Text as floats, null where it is no number."""
    try:
        return column.cast(pa.float64())
    except pa.ArrowInvalid:
        digits = to_numpy(pc.fill_null(pc.ascii_is_decimal(column), False)).astype(bool)
    # Most values are digits only, which is quicker to check than the regular expression.
    rest = np.flatnonzero(~digits)
    others = column.take(pa.array(rest))
    if booleans:
        lower = pc.utf8_lower(others)
        for word, number in _BOOLEANS.items():
            others = pc.if_else(pc.fill_null(pc.equal(lower, word), False), number, others)
        column = pc.replace_with_mask(column, pa.array(~digits), others)
    is_number = pc.match_substring_regex(others, _FLOAT)
    digits[rest] = to_numpy(pc.fill_null(is_number, False)).astype(bool)
    return try_cast(null_unless(column, pa.array(digits)), pa.float64())
