"""From the columns of a file to the columns that the config names.

A column may have aliases. Its value is the first that the record has under one of its names, in
their order; else that of the Hive folder of one of the names; else its default. Nulls, empty
strings, `null_values` and, as an id, NaN and infinity count as no value.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from embedmill.pipeline.errors import InputError
from embedmill.pipeline.prepare.parse.ids import id_text
from embedmill.pipeline.prepare.parse.mixed import Column, MixedColumn, choose_first, parts_of
from embedmill.pipeline.prepare.parse.values import (
    Mask,
    is_text,
    null_unless,
    plain_values,
    to_numpy,
)
from embedmill.pipeline.prepare.readers.layout import Layout

__all__ = ["check_column_names", "columns_to_read", "resolve_columns"]


def columns_to_read(names: Collection[str], layout: Layout) -> list[str]:
    """The columns of a file that hold wanted values, each once; all where none is wanted."""
    wanted = [name for column in layout.wanted for name in layout.names_of(column)]
    return [name for name in dict.fromkeys(wanted or names) if name in names]


def check_column_names(
    names: Sequence[str], layout: Layout, folders: Mapping[str, str], where: str
) -> None:
    """Check that a file has every wanted column, and none twice.

    Args:
        names: columns of the file.
        layout: has the wanted columns, their aliases and defaults.
        folders: values of the file's Hive folders.
        where: the file, for errors.

    Raises:
        InputError: a column is lacking, or there twice.
    """
    for column in layout.wanted:
        occurrences = 0
        for name in layout.names_of(column):
            count = list(names).count(name)
            occurrences += count + (name in folders)
            if count > 1:
                raise InputError(
                    f"has {count} columns '{name}'", where=where, todo="Rename all but one"
                )
        if not occurrences and column not in layout.defaults:
            raise _lacks_column(column, names, layout, where)


def _lacks_column(column: str, names: Sequence[str], layout: Layout, where: str) -> InputError:
    shown = ", ".join(repr(n[:40]) for n in names[:20])
    known = "".join(f" or '{n}'" for n in layout.names_of(column)[1:])
    if len(names) == 1:
        todo = f"Is the separator {layout.separator!r}?"
    else:
        todo = (
            "Check the column names in the config; files that lack it need "
            "events.aliases or events.defaults"
        )
    return InputError(f"has no column '{column}'{known}; it has {shown}", where=where, todo=todo)


def resolve_columns(
    file_columns: Mapping[str, Column], rows: int, layout: Layout, folders: Mapping[str, str]
) -> dict[str, Column]:
    """The values of the wanted columns, [rows] each; all columns where none is wanted.

    Args:
        file_columns: values by the names that the file has, [rows] each.
        rows: number of records.
        layout: has the wanted columns, their aliases and defaults.
        folders: values of the file's Hive folders.
    """
    if layout.null_values:
        nulls = layout.null_values
        file_columns = {n: _without(column, nulls) for n, column in file_columns.items()}
        folders = {name: value for name, value in folders.items() if value not in nulls}
    if not layout.wanted:
        return dict(file_columns)
    return {name: _resolve(name, file_columns, rows, layout, folders) for name in layout.wanted}


def _resolve(
    column: str,
    file_columns: Mapping[str, Column],
    rows: int,
    layout: Layout,
    folders: Mapping[str, str],
) -> Column:
    names = layout.names_of(column)
    values = [file_columns[name] for name in names if name in file_columns]
    constants = [folders[name] for name in names if name in folders]
    constants += [layout.defaults[column]] if column in layout.defaults else []
    if len(values) == 1 and not constants:
        return values[0]
    if not values:
        return _repeat(constants[0], rows) if constants else pa.nulls(rows, pa.string())
    values = [_plain(value) for value in values]
    missing = [_is_missing(value, is_id=column in layout.ids) for value in values]
    if not missing[0].any():
        return values[0]
    if constants:
        values.append(_repeat(constants[0], rows))
        missing.append(np.zeros(rows, bool))
    return choose_first(values, missing)


def _without(column: Column, null_values: Sequence[str]) -> Column:
    """The column with null where the text of a value is one of `null_values`."""
    parts = []
    for part in map(plain_values, parts_of(column)):
        kind = part.type
        if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
            text = id_text(part, "").text
        else:
            text = part if is_text(kind) else None
        if text is not None:
            is_null = pc.is_in(text, pa.array(null_values, pa.string()))
            part = null_unless(part, pc.invert(is_null))
        parts.append(part)
    return MixedColumn(tuple(parts)) if len(parts) > 1 else parts[0]


def _plain(column: Column) -> Column:
    if isinstance(column, MixedColumn):
        return column
    return plain_values(column)


def _is_missing(column: Column, *, is_id: bool) -> Mask:
    """Where there is no value: null, the empty string, or as an id NaN or infinity."""
    missing = to_numpy(column.is_null()).astype(bool)
    for part in parts_of(column):
        if is_text(part.type):
            missing |= to_numpy(pc.fill_null(pc.equal(part, ""), False)).astype(bool)
        elif is_id and pa.types.is_floating(part.type):
            values = to_numpy(part.cast(pa.float64()))
            missing |= to_numpy(part.is_valid()).astype(bool) & ~np.isfinite(values)
    return missing


def _repeat(text: str, rows: int) -> pa.Array:
    return pa.array([text]).take(pa.array(np.zeros(rows, np.int64)))
