"""Columns whose values have several types, as after an alias or a default, or in JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from embedmill.pipeline.prepare.parse.values import Mask, null_unless

__all__ = ["Column", "MixedColumn", "choose_first", "concat", "parts_of"]


@dataclass(frozen=True)
class MixedColumn:
    """Values of several types: an array of each, [N]; in a row at most one of them has a value.

    So each value is parsed by its own type, whatever the values beside it are.
    """

    parts: tuple[pa.Array, ...]

    def __len__(self) -> int:
        return len(self.parts[0])

    def filter(self, mask: pa.Array) -> MixedColumn:
        """The rows where the mask is true."""
        return MixedColumn(tuple(part.filter(mask) for part in self.parts))

    def is_null(self) -> pa.Array:
        """Whether a row has no value, [N]."""
        missing = self.parts[0].is_null()
        for part in self.parts[1:]:
            missing = pc.and_(missing, part.is_null())
        return missing


# What a reader gives for a column.
Column: TypeAlias = pa.Array | MixedColumn


def parts_of(column: Column) -> tuple[pa.Array, ...]:
    """The arrays of one type each, [N]."""
    return column.parts if isinstance(column, MixedColumn) else (column,)


def concat(columns: Sequence[Column]) -> Column:
    """The rows of all columns, one after the other."""
    kinds = dict.fromkeys(part.type for column in columns for part in parts_of(column))
    parts = []
    for kind in kinds:
        arrays = []
        for column in columns:
            same = [part for part in parts_of(column) if part.type == kind]
            arrays.append(same[0] if same else pa.nulls(len(column), kind))
        parts.append(pa.concat_arrays(arrays))
    return MixedColumn(tuple(parts)) if len(parts) > 1 else parts[0]


def _choose(columns: Sequence[Column], masks: Sequence[Mask]) -> Column:
    """Each row's value from the column whose mask is true there; null where none is.

    Args:
        columns: [N] each.
        masks: one for each column, [N]; at most one is true in a row.
    """
    by_type: dict[pa.DataType, pa.Array] = {}
    for column, mask in zip(columns, masks, strict=True):
        for part in parts_of(column):
            chosen = null_unless(part, pa.array(mask))
            before = by_type.get(part.type)
            by_type[part.type] = chosen if before is None else pc.coalesce(before, chosen)
    parts = [part for part in by_type.values() if part.null_count < len(part)]
    if len(parts) > 1:
        return MixedColumn(tuple(parts))
    return parts[0] if parts else next(iter(by_type.values()))


def choose_first(columns: Sequence[Column], missing: Sequence[Mask]) -> Column:
    """Each row's first value that is not missing; null where all are.

    Args:
        columns: [N] each.
        missing: one mask for each column, [N].
    """
    open_rows, masks = np.ones(len(missing[0]), bool), []
    for mask in missing:
        masks.append(open_rows & ~mask)
        open_rows = open_rows & mask
    return _choose(columns, masks)
