"""Items that have certain values in the log's item metadata."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from embedmill.pipeline.errors import InputError
from embedmill.pipeline.index.retrieval.row_search import RowSearcher
from embedmill.pipeline.index.searchable import Rows
from embedmill.pipeline.views.items import ItemMetadata

__all__ = ["rows_with_metadata"]


def rows_with_metadata(
    metadata: ItemMetadata, index: RowSearcher, wanted: Mapping[str, str | Sequence[str]]
) -> Rows:
    """Rows of indexed items that have, in every column named, one of the values wanted.

    Args:
        metadata: of the run: item, title, categories.
        index: maps ids to rows.
        wanted: values by column.

    Raises:
        InputError: no metadata, no such column, or no item is left; suggests similar values.
    """
    if not metadata.exists:
        raise InputError(
            "a filter by metadata, and the run has none",
            where=metadata.url,
            todo="Name its files in [events.items] of the config",
        )
    table = metadata.table()
    matching = np.ones(table.num_rows, bool)
    for column, values in wanted.items():
        if column not in table.column_names:
            raise InputError(
                f"no column '{column}' in the item metadata; "
                f"there are {', '.join(table.column_names)}",
                where=metadata.url,
            )
        matching_here = _has_any(table[column].combine_chunks(), _as_list(values))
        if not matching_here.any():
            raise InputError(
                f"no item has {column} = {_listed(values)}",
                where=metadata.url,
                todo=_suggestion(table[column], _as_list(values)),
            )
        matching &= matching_here
    ids = table["item"].filter(pa.array(matching)).combine_chunks()
    position = index.positions_of_ids(ids)
    if not (position >= 0).any():
        conditions = (f"{column} = {_listed(values)}" for column, values in wanted.items())
        raise InputError(
            f"no item of the index has {' and '.join(conditions)}: the filter leaves nothing",
            where=index.stored.artifact.storage.root,
        )
    return index.row_N[position[position >= 0]]


def _has_any(column: pa.Array, values: Sequence[str]) -> NDArray[np.bool_]:
    """Which rows hold one of the values, in a column of texts or of lists of texts."""
    wanted, matching = pa.array(values, pa.string()), np.zeros(len(column), bool)
    if not pa.types.is_list(column.type):
        return np.asarray(pc.is_in(column, wanted))
    element_matches = np.asarray(pc.is_in(pc.list_flatten(column), wanted))
    matching[np.asarray(pc.list_parent_indices(column))[element_matches]] = True
    return matching


def _suggestion(column: pa.ChunkedArray, wanted: Sequence[str]) -> str:
    flat = pc.list_flatten(column) if pa.types.is_list(column.type) else column
    values = [value for value in pc.unique(flat).to_pylist() if value is not None]
    similar = [one for value in wanted for one in difflib.get_close_matches(value, values, 3, 0.5)]
    if similar:
        return f"Did you mean {', '.join(map(_quoted, similar))}?"
    return f"There are {', '.join(map(_quoted, sorted(values)[:10]))}" if values else ""


def _as_list(values: str | Sequence[str]) -> list[str]:
    return [values] if isinstance(values, str) else list(values)


def _listed(values: str | Sequence[str]) -> str:
    return ", ".join(map(_quoted, _as_list(values)))


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
