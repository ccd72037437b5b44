"""Formats of databases that run beside a program: DuckDB, Redis, Chroma."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa

from embedmill.pipeline.formats.vector_table import NumberBlock, VectorTable

__all__ = ["chroma", "duckdb_file", "redis"]

_SQL = """-- duckdb {side}.duckdb < {side}.sql
INSTALL vss;
LOAD vss;
SET hnsw_enable_experimental_persistence = true;
CREATE INDEX {side}_vector ON {side} USING HNSW (vector) WITH (metric = 'ip');
-- The best first:
-- SELECT id FROM {side} ORDER BY array_negative_inner_product(vector, ?::FLOAT[{dim}]) LIMIT 10;
"""
# DuckDB 2.0's own files are not read by 1.x, and extensions come later for a new version.
_DUCKDB: dict[str, str | bool | int | float | list[str]] = {
    "storage_compatibility_version": "v1.0.0"
}
_PIECE = 1 << 20  # numbers of a batch
# Between values of a tag of RediSearch: no id or category has it.
_SEPARATOR = "\x1f"


def duckdb_file(table: VectorTable, folder: Path) -> None:
    """Write `SIDE.duckdb`, a database with the table SIDE, and `SIDE.sql`, which makes an index.

    The vectors are a FLOAT[D]; without the index, DuckDB searches them exactly. DuckDB 1.0 and
    newer read the file.
    """
    import duckdb

    side, dim = table.side, table.dim
    (folder / f"{side}.sql").write_text(_SQL.format(side=side, dim=dim), encoding="utf-8")
    extra = (
        ", title VARCHAR NOT NULL, categories VARCHAR[] NOT NULL" if table.payload.exists else ""
    )
    with duckdb.connect(str(folder / f"{side}.duckdb"), config=_DUCKDB) as database:
        database.execute(
            f"CREATE TABLE {side} (row BIGINT PRIMARY KEY, id VARCHAR NOT NULL, "
            f"count BIGINT NOT NULL{extra}, vector FLOAT[{dim}] NOT NULL)"
        )
        for block in _pieces(table):
            columns = {
                "row": pa.array(block.row_N),
                "id": block.ids,
                "count": pa.array(block.count_N),
                **dict(
                    zip(("title", "categories"), table.payload.columns(block.ids), strict=False)
                ),
                "vector": pa.FixedSizeListArray.from_arrays(
                    pa.array(block.vector_ND.reshape(-1)), dim
                ),
            }
            database.register("batch", pa.table(columns))
            database.execute(f"INSERT INTO {side} SELECT * FROM batch")
            database.unregister("batch")


def redis(table: VectorTable, folder: Path) -> None:
    """Write `SIDE.index.resp` and `SIDE.resp`, for `redis-cli --pipe < FILE`.

    A hash SIDE:ROW has id, count, title, categories, and the vector as float32; the index of
    Redis' query engine is named SIDE.
    """
    side = table.side
    tag = ("TAG", "SEPARATOR", _SEPARATOR, "CASESENSITIVE")
    schema = ["id", *tag, "count", "NUMERIC"]
    schema += ["title", "TEXT", "categories", *tag] if table.payload.exists else []
    schema += ["vector", "VECTOR", "HNSW", "6", "TYPE", "FLOAT32", "DIM", str(table.dim)]
    schema += ["DISTANCE_METRIC", "IP"]
    create = ["FT.CREATE", side, "ON", "HASH", "PREFIX", "1", f"{side}:", "SCHEMA", *schema]
    with (folder / f"{side}.index.resp").open("wb") as raw:
        _command(raw, create)
    with (folder / f"{side}.resp").open("wb") as raw:
        for block in _pieces(table):
            vector_ND = np.ascontiguousarray(block.vector_ND, "<f4")
            for at, (row, fields) in enumerate(_records(table, block)):
                categories = fields.pop("categories", None)
                if categories is not None:
                    fields["categories"] = _SEPARATOR.join(categories)
                words: list[str | bytes] = ["HSET", f"{side}:{row}"]
                for name, value in fields.items():
                    words += [name, str(value)]
                _command(raw, [*words, "vector", vector_ND[at].tobytes()])


def chroma(table: VectorTable, folder: Path) -> None:
    """Write the collection SIDE, for `chromadb.PersistentClient(folder)`; ids are rows.

    The raw id is in the metadata, under `id`.
    """
    import chromadb
    from chromadb.config import Settings

    client = chromadb.PersistentClient(str(folder), Settings(anonymized_telemetry=False))
    collection = client.create_collection(
        table.side, embedding_function=None, configuration={"hnsw": {"space": "ip"}}
    )
    most = client.get_max_batch_size()
    for block in (p for whole in table.blocks() for p in whole.pieces(most * table.dim)):
        metadata = [fields for _, fields in _records(table, block)]
        for fields in metadata:
            if not fields.get("categories", True):
                del fields["categories"]  # Chroma takes no empty lists
        collection.add(
            ids=[str(row) for row in block.row_N.tolist()],
            embeddings=block.vector_ND,
            metadatas=metadata,
        )
    client.close()


def _pieces(table: VectorTable) -> Iterator[NumberBlock]:
    for whole in table.blocks():
        yield from whole.pieces(_PIECE)


def _records(table: VectorTable, block: NumberBlock) -> Iterator[tuple[int, dict[str, Any]]]:
    columns = (block.row_N.tolist(), block.ids.to_pylist(), block.count_N.tolist())
    for row, raw, count, payload in zip(*columns, table.payload.records(block.ids), strict=True):
        yield row, {"id": raw, "count": count, **payload}


def _command(raw: BinaryIO, words: Sequence[str | bytes]) -> None:
    """A command in Redis' protocol (RESP, "Arrays of bulk strings")."""
    raw.write(b"*%d\r\n" % len(words))
    for word in words:
        data = word.encode() if isinstance(word, str) else word
        raw.write(b"$%d\r\n%b\r\n" % (len(data), data))
