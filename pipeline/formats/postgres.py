"""Format of PostgreSQL with pgvector: a file for COPY, and SQL that loads it."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from embedmill.pipeline.errors import InputError
from embedmill.pipeline.formats.line_writer import NUMBERS, escape, join_numbers, write_lines
from embedmill.pipeline.formats.vector_table import NumberBlock, VectorTable

__all__ = ["pgvector"]

# COPY's text format (PostgreSQL's manual, COPY, "Text Format"), the backslash first.
_ESCAPES = {"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"}
# Number type → pgvector's type, and the most coordinates that its HNSW index takes.
_TYPES = {"float32": ("vector", 2000), "float16": ("halfvec", 4000)}

_SQL = """-- psql -f {side}.sql, in this folder
CREATE EXTENSION IF NOT EXISTS vector;
CREATE TABLE {side} (
  row bigint PRIMARY KEY,
  id text NOT NULL,
  count bigint NOT NULL,{payload}
  embedding {kind}({dim}) NOT NULL
);
\\copy {side} ({columns}) FROM '{side}.copy'
CREATE INDEX ON {side} USING hash (id);
{index}
-- The best first: SELECT id FROM {side} ORDER BY embedding <#> '[...]' LIMIT 10;
"""
_PAYLOAD = "\n  title text NOT NULL DEFAULT '',\n  categories text[] NOT NULL DEFAULT '{}',"
_OF_CATEGORIES = "CREATE INDEX ON {side} USING gin (categories);\n"
_INDEX = "CREATE INDEX ON {side} USING hnsw (embedding {kind}_ip_ops);"
_NO_INDEX = "-- No index: pgvector's HNSW takes at most {most} coordinates of a {kind}."


def pgvector(table: VectorTable, folder: Path) -> None:
    """Write `SIDE.copy` and `SIDE.sql`.

    Raises:
        InputError: an id holds a NUL character, which PostgreSQL cannot store.
    """
    kind, most = _TYPES[table.dtype]
    index = (_INDEX if table.dim <= most else _NO_INDEX).format(
        side=table.side, kind=kind, most=most
    )
    names = ["row", "id", "count", *(field.name for field in table.payload.fields), "embedding"]
    sql = _SQL.format(
        side=table.side,
        kind=kind,
        dim=table.dim,
        index=(_OF_CATEGORIES if table.payload.exists else "").format(side=table.side) + index,
        payload=_PAYLOAD if table.payload.exists else "",
        columns=", ".join(names),
    )
    (folder / f"{table.side}.sql").write_text(sql, encoding="utf-8")
    with (folder / f"{table.side}.copy").open("wb") as raw:
        for block in (piece for whole in table.blocks() for piece in whole.pieces(NUMBERS)):
            _check_ids(block, table.side)
            vector = pc.binary_join_element_wise("[", join_numbers(block.vector_ND, ","), "]", "")
            row, count = (pc.cast(pa.array(n), pa.string()) for n in (block.row_N, block.count_N))
            payload = [escape(_text(c), _ESCAPES) for c in table.payload.columns(block.ids)]
            write_lines(raw, [row, escape(block.ids, _ESCAPES), count, *payload, vector], "\t")


def _text(column: pa.Array) -> pa.Array:
    """A column as text without NUL characters, lists as array literals."""
    if pa.types.is_list(column.type):
        elements = escape(_text(column.flatten()), {"\\": "\\\\", '"': '\\"'})
        quoted = pc.binary_join_element_wise('"', elements, '"', "")
        lists = pa.ListArray.from_arrays(_offsets(column), quoted)
        return pc.binary_join_element_wise("{", pc.binary_join(lists, ","), "}", "")
    return pc.replace_substring(column, "\0", "")


def _offsets(column: pa.Array) -> pa.Array:
    """Where lists begin and end in what `flatten` gives."""
    return pc.subtract(column.offsets, column.offsets[0])


def _check_ids(block: NumberBlock, side: str) -> None:
    """Raise InputError where an id holds a NUL character."""
    nul = block.ids.filter(pc.match_substring(block.ids, "\0"))
    if len(nul):
        raise InputError(
            f"{len(nul):,} {side} have a NUL character in their id, the first is "
            f"{json.dumps(nul[0].as_py())}: PostgreSQL cannot store it",
            todo="Choose another format",
        )
