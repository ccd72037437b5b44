"""From the columns of a file to the columns that the config names.

A column may have aliases. Its value is the first that the record has under one of its names, in
their order; else that of the Hive folder of one of the names; else its default. Nulls and empty
strings count as no value.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from embedmill.pipeline.errors import InputError
from embedmill.pipeline.prepare.parse.values import (
    Mask,
    as_text,
    decode_dictionary,
    is_text,
    null_unless,
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
    file_columns: Mapping[str, pa.Array], rows: int, layout: Layout, folders: Mapping[str, str]
) -> dict[str, pa.Array]:
    """The values of the wanted columns, [rows] each; all columns where none is wanted.

    Args:
        file_columns: values by the names that the file has, [rows] each.
        rows: number of records.
        layout: has the wanted columns, their aliases and defaults.
        folders: values of the file's Hive folders.
    """
    if not layout.wanted:
        return dict(file_columns)
    return {name: _resolve(name, file_columns, rows, layout, folders) for name in layout.wanted}


def _resolve(
    column: str,
    file_columns: Mapping[str, pa.Array],
    rows: int,
    layout: Layout,
    folders: Mapping[str, str],
) -> pa.Array:
    names = layout.names_of(column)
    parts = [decode_dictionary(file_columns[name]) for name in names if name in file_columns]
    constants = [folders[name] for name in names if name in folders]
    constants += [layout.defaults[column]] if column in layout.defaults else []
    if len(parts) == 1 and not constants:
        return parts[0]
    if not parts:
        return _repeat(constants[0], rows) if constants else pa.nulls(rows, pa.string())
    missing = [_is_missing(part) for part in parts]
    if not missing[0].any():
        return parts[0]
    if len({part.type for part in parts}) > 1 or constants:
        parts = [_as_readable_text(part, column) for part in parts]
    value = null_unless(parts[0], pa.array(~missing[0]))
    for part, mask in zip(parts[1:], missing[1:], strict=True):
        value = pc.coalesce(value, null_unless(part, pa.array(~mask)))
    return pc.coalesce(value, pa.scalar(constants[0], pa.string())) if constants else value


def _as_readable_text(part: pa.Array, column: str) -> pa.Array:
    """Values of any type as text that is parsed to the same values again; times in ISO form."""
    kind = part.type
    if pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return part.cast(pa.string())
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        zone = getattr(kind, "tz", None)
        plain_time = part.cast(pa.timestamp("us", "UTC" if zone else None), safe=False)
        return plain_time.cast(pa.string())
    if pa.types.is_boolean(kind):
        return part.cast(pa.int8()).cast(pa.string())
    return as_text(part, column)


def _is_missing(part: pa.Array) -> Mask:
    """Where there is no value: null or the empty string."""
    missing = part.is_null()
    if is_text(part.type):
        missing = pc.or_(missing, pc.fill_null(pc.equal(part, ""), True))
    return to_numpy(missing).astype(bool)


def _repeat(text: str, rows: int) -> pa.Array:
    return pa.array([text]).take(pa.array(np.zeros(rows, np.int64)))
