"""From the columns that a file has to those that the config names.

The value of a column is the first that a record has under its names, in their order; else that
of a Hive folder of this name; else its default. A null or an empty text is no value.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from embedmill.pipeline.errors import InputError
from embedmill.pipeline.prepare.parse.values import Mask, as_array, as_text, is_text, only, plain
from embedmill.pipeline.prepare.readers.parsed_batch import Layout

__all__ = ["check_names", "chosen", "resolved"]


def chosen(names: Collection[str], layout: Layout) -> list[str]:
    """The columns to read of those that a file has, each once; all where none is wanted."""
    wanted = [name for column in layout.wanted for name in layout.known_as(column)]
    return [name for name in dict.fromkeys(wanted or names) if name in names]


def check_names(
    names: Sequence[str], layout: Layout, folders: Mapping[str, str], where: str
) -> None:
    """Raise InputError unless every wanted column is there, and none twice."""
    for column in layout.wanted:
        found = 0
        for name in layout.known_as(column):
            count = list(names).count(name)
            found += count + (name in folders)
            if count > 1:
                raise InputError(
                    f"has {count} columns '{name}'", where=where, todo="Rename all but one"
                )
        if not found and column not in layout.defaults:
            raise _lacking(column, names, layout, where)


def _lacking(column: str, names: Sequence[str], layout: Layout, where: str) -> InputError:
    shown = ", ".join(repr(n[:40]) for n in names[:20])
    known = "".join(f" or '{n}'" for n in layout.known_as(column)[1:])
    if len(names) == 1:
        todo = f"Is the separator {layout.separator!r}?"
    else:
        todo = (
            "Check the column names in the config; files that lack it need "
            "events.aliases or events.defaults"
        )
    return InputError(f"has no column '{column}'{known}; it has {shown}", where=where, todo=todo)


def resolved(
    found: Mapping[str, pa.Array], rows: int, layout: Layout, folders: Mapping[str, str]
) -> dict[str, pa.Array]:
    """Values of the wanted columns; everything that was found where none is wanted."""
    if not layout.wanted:
        return dict(found)
    return {column: _resolved(column, found, rows, layout, folders) for column in layout.wanted}


def _resolved(
    column: str,
    found: Mapping[str, pa.Array],
    rows: int,
    layout: Layout,
    folders: Mapping[str, str],
) -> pa.Array:
    names = layout.known_as(column)
    parts = [plain(found[name]) for name in names if name in found]
    fixed = [folders[name] for name in names if name in folders]
    fixed += [layout.defaults[column]] if column in layout.defaults else []
    if len(parts) == 1 and not fixed:
        return parts[0]
    if not parts:
        return _repeated(fixed[0], rows) if fixed else pa.nulls(rows, pa.string())
    lacking = [_lacks(part) for part in parts]
    if not any(mask.any() for mask in lacking[:1]):
        return parts[0]
    if len({part.type for part in parts}) > 1 or fixed:
        parts = [_as_written(part, column) for part in parts]
    value = only(parts[0], pa.array(~lacking[0]))
    for part, mask in zip(parts[1:], lacking[1:], strict=True):
        value = pc.coalesce(value, only(part, pa.array(~mask)))
    return pc.coalesce(value, pa.scalar(fixed[0], pa.string())) if fixed else value


def _as_written(part: pa.Array, column: str) -> pa.Array:
    """Values of any type as text that is read back the same, times as ISO."""
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


def _lacks(part: pa.Array) -> Mask:
    """Where there is no value."""
    lacks = part.is_null()
    if is_text(part.type):
        lacks = pc.or_(lacks, pc.fill_null(pc.equal(part, ""), True))
    return as_array(lacks).astype(bool)


def _repeated(text: str, rows: int) -> pa.Array:
    return pa.array([text]).take(pa.array(np.zeros(rows, np.int64)))
