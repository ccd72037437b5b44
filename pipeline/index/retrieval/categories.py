"""Allow-lists by what the log's item metadata says."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from embedmill.pipeline.errors import InputError
from embedmill.pipeline.index.contract import Rows
from embedmill.pipeline.index.retrieval.row_search import IndexReader
from embedmill.pipeline.store.artifact import Artifact

__all__ = ["rows_where"]


def rows_where(
    events: Artifact, index: IndexReader, wanted: Mapping[str, str | Sequence[str]]
) -> Rows:
    """Rows in the index of items that have one of the wanted values in every column named.

    Args:
        events: the artifact that has `items.parquet`: item, title, categories.
        index: gives places to ids.
        wanted: values by column.

    Raises:
        InputError: no metadata, no such column, or no item that is left; names values alike.
    """
    if not events.has("items.parquet"):
        raise InputError(
            "a filter by metadata, and the run has none",
            where=events.storage.root,
            todo="Name its files in [events.items] of the config",
        )
    table = events.read_table("items.parquet")
    kept = np.ones(table.num_rows, bool)
    for column, values in wanted.items():
        if column not in table.column_names:
            raise InputError(
                f"no column '{column}' in the item metadata; "
                f"there are {', '.join(table.column_names)}",
                where=events.url("items.parquet"),
            )
        asked = [values] if isinstance(values, str) else list(values)
        here = _has(table[column].combine_chunks(), asked)
        if not here.any():
            raise InputError(
                f"no item has {column} = {', '.join(map(_quoted, asked))}",
                where=events.url("items.parquet"),
                todo=_alike(table[column], asked),
            )
        kept &= here
    place = index.places_of(table["item"].filter(pa.array(kept)).combine_chunks())
    if not (place >= 0).any():
        said = " and ".join(f"{column} = {_shown(values)}" for column, values in wanted.items())
        raise InputError(
            f"no item of the index has {said}: the filter leaves nothing",
            where=index.artifact.storage.root,
        )
    return index.row_N[place[place >= 0]]


def _has(column: pa.Array, values: Sequence[str]) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Which rows hold one of the values, in a text or a list of texts."""
    wanted, held = pa.array(values, pa.string()), np.zeros(len(column), bool)
    if not pa.types.is_list(column.type):
        return np.asarray(pc.is_in(column, wanted))
    inside = np.asarray(pc.is_in(pc.list_flatten(column), wanted))
    held[np.asarray(pc.list_parent_indices(column))[inside]] = True
    return held


def _alike(column: pa.ChunkedArray, asked: Sequence[str]) -> str:
    flat = pc.list_flatten(column) if pa.types.is_list(column.type) else column
    names = [name for name in pc.unique(flat).to_pylist() if name is not None]
    near = [one for value in asked for one in difflib.get_close_matches(value, names, 3, 0.5)]
    if near:
        return f"Did you mean {', '.join(map(_quoted, near))}?"
    return f"There are {', '.join(map(_quoted, sorted(names)[:10]))}" if names else ""


def _shown(values: str | Sequence[str]) -> str:
    return ", ".join(map(_quoted, [values] if isinstance(values, str) else values))


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
