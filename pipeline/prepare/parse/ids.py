"""The text of an id: the only place that decides it, for logs, metadata and files of ids.

It depends on the value alone, never on other values, files, aliases or defaults:

* text is kept exactly as it is in the file, also where it looks like a number;
* whole numbers of any type are their decimal digits: 7, 7.0 and 7e0 of JSON are the id "7";
* a number with a fraction, or a float of 2^64 or more, which stands for many whole numbers, is no
  id: it is rejected;
* NaN and infinity are no value: such an id is missing;
* true and false are "true" and "false", dates ISO dates, UUIDs their usual text with dashes;
* bytes of a fixed size are their text; hexadecimal digits where that is no printable UTF-8.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from embedmill.pipeline.errors import InputError
from embedmill.pipeline.prepare.parse.mixed import Column, MixedColumn, parts_of
from embedmill.pipeline.prepare.parse.values import (
    Floats,
    Mask,
    is_text,
    null_unless,
    plain_values,
    to_numpy,
    try_cast,
)

__all__ = ["EXACT_FLOATS", "Ids", "id_text", "number_text", "separate_fractions"]

EXACT_FLOATS = 2.0**53  # a float64 holds every whole number below it
_LIMIT = 2.0**64
_SHOWN = r"^[^\x00-\x1f\x7f]*$"


@dataclass(frozen=True)
class Ids:
    """Ids of N records.

    Attributes:
        text: the ids as strings, [N]; null where there is none.
        not_whole: where there is a number that is no id, [N]; the text is null there.
    """

    text: pa.Array
    not_whole: Mask


def id_text(column: Column, name: str) -> Ids:
    """The ids of a column.

    Args:
        column: [N].
        name: of the column, for errors.

    Raises:
        InputError: the type cannot be an id.
    """
    ids = [_ids(plain_values(part), name) for part in parts_of(column)]
    if len(ids) == 1:
        return ids[0]
    not_whole = np.logical_or.reduce([one.not_whole for one in ids])
    return Ids(pc.coalesce(*(one.text for one in ids)), not_whole)


def number_text(text: str) -> str | float:
    """The digits of a number of JSON if it is whole, else the number as a float.

    Args:
        text: as it is in the line, such as 7, 7.0, 1.5e3, NaN.
    """
    if text.removeprefix("-").isdecimal():
        return "0" if text == "-0" else text
    number = float(text)
    if abs(number) < EXACT_FLOATS:
        return str(int(number)) if number.is_integer() else number
    if not abs(number) <= _LIMIT:
        return number
    exact = Decimal(text)
    if exact != exact.to_integral_value():
        return float("nan")  # stands for it, as the float no longer has its fraction
    return str(int(exact)) if abs(exact) < _LIMIT else number


def separate_fractions(numbers: pa.Array) -> Column:
    """Floats as `number_text` gives them: whole ones as digits, the others as floats.

    Args:
        numbers: float64, [N], below EXACT_FLOATS or not finite.
    """
    values = to_numpy(numbers.cast(pa.float64()))
    whole = _is_whole(values)
    if (whole | to_numpy(numbers.is_null())).all():
        return _digits(values, whole)
    rest = null_unless(numbers, pa.array(~whole))
    return MixedColumn((_digits(values, whole), rest)) if whole.any() else rest


def _ids(column: pa.Array, name: str) -> Ids:
    kind = column.type
    text_of = next((convert for test, convert in _KINDS if test(kind)), None)
    if text_of is None:
        raise InputError(f"column '{name}' is {kind}; ids are text, whole numbers or dates")
    text = text_of(column)
    if isinstance(text, Ids):
        return text
    return Ids(text, np.zeros(len(column), bool))


def _of_floats(column: pa.Array) -> Ids:
    """Whole numbers as digits; pandas stores whole numbers with nulls as floats."""
    values = to_numpy(column.cast(pa.float64()))
    whole = _is_whole(values)
    return Ids(_digits(values, whole), np.isfinite(values) & ~whole)


def _is_whole(values: Floats) -> Mask:
    """Whether floats are whole numbers below 2^64; NaN, which is null too, is not."""
    with np.errstate(invalid="ignore"):
        whole: Mask = (np.abs(values) < _LIMIT) & (np.floor(values) == values)
    return whole


def _digits(values: Floats, whole: Mask) -> pa.Array:
    """The digits of whole floats, [N], null for the others."""
    small = whole & (np.abs(values) < 2.0**63)
    text = pa.array(np.where(small, values, 0).astype(np.int64), mask=~small).cast(pa.string())
    large = whole & ~small
    if not large.any():
        return text
    sign = pa.array(np.where(values < 0, "-", ""))
    digits = pa.array(np.where(large, np.abs(values), 0).astype(np.uint64), mask=~large)
    return pc.coalesce(text, pc.binary_join_element_wise(sign, digits.cast(pa.string()), ""))


def _of_decimals(column: pa.Array) -> Ids:
    """Whole numbers as digits, of any size."""
    text = column.cast(pa.string())
    if column.type.scale != 0:
        exponents = to_numpy(pc.fill_null(pc.match_substring(text, "E"), False)).astype(bool)
        if exponents.any():  # Arrow writes 0E-10, and 1.2E+4 where the scale is negative
            plain = [f"{Decimal(one):f}" for one in text.filter(pa.array(exponents)).to_pylist()]
            text = pc.replace_with_mask(text, pa.array(exponents), pa.array(plain, pa.string()))
        text = pc.replace_substring_regex(text, r"^(-?[0-9]+)\.0*$", r"\1")
    fraction = to_numpy(pc.fill_null(pc.match_substring(text, "."), False)).astype(bool)
    if fraction.any():
        text = null_unless(text, pa.array(~fraction))
    return Ids(text, fraction)


def _of_fixed_bytes(column: pa.Array) -> pa.Array:
    text = try_cast(column.cast(pa.binary()), pa.string())
    shown = null_unless(text, pc.fill_null(pc.match_substring_regex(text, _SHOWN), False))
    if shown.null_count == column.null_count:
        return shown
    digits = [None if one is None else one.hex() for one in column.to_pylist()]
    return pc.coalesce(shown, pa.array(digits, pa.string()))


def _of_dates(column: pa.Array) -> pa.Array:
    return column.cast(pa.date32()).cast(pa.string())


def _cast(column: pa.Array) -> pa.Array:
    return column.cast(pa.string())


# Tried in turn; `plain_values` has turned other types of text, UUIDs among them, into strings.
_KINDS: tuple[tuple[Callable[[pa.DataType], bool], Callable[[pa.Array], pa.Array | Ids]], ...] = (
    (is_text, lambda column: column),
    (pa.types.is_integer, _cast),
    (pa.types.is_null, _cast),
    (pa.types.is_floating, _of_floats),
    (pa.types.is_decimal, _of_decimals),
    (pa.types.is_boolean, _cast),
    (pa.types.is_date, _of_dates),
    (pa.types.is_fixed_size_binary, _of_fixed_bytes),
)
