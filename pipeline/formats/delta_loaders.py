"""Deltas applied to the tables that an export was loaded into: pgvector, Qdrant, Lance.

The tables are those that the formats of these names write: `users` and `items`, with columns (or
payload) `row`, `id`, `count` and a vector. Beside them `embedmill_delta` has the last delta that
was applied. In PostgreSQL rows and position change in one transaction. Elsewhere the position is
written last: a delta that was applied in part is applied again, which comes to the same.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.compute as pc

from embedmill.pipeline.errors import ConfigError, ContractError, InputError
from embedmill.pipeline.formats.delta_state import SideDelta
from embedmill.pipeline.formats.deltas import read_delta
from embedmill.pipeline.formats.payload import FIELDS

__all__ = [
    "DeltaPosition",
    "DeltaTarget",
    "LanceTables",
    "PgvectorTables",
    "QdrantCollections",
    "load_delta",
]

_COLUMNS = {"row", "id", "count", "vector"}
_POSITION = "embedmill_delta"
_POINTS = 1000  # of a request to Qdrant


@dataclass(frozen=True)
class DeltaPosition:
    """The last delta that was applied: of which base and space, its number and its hash."""

    base: str
    number: int
    hash: str
    space: str


class DeltaTarget(Protocol):
    """Tables that follow an export."""

    def session(self) -> AbstractContextManager[None]:
        """Around reading the position and applying a delta; nobody else applies one meanwhile."""

    def position(self) -> DeltaPosition | None:
        """The last delta that was applied; None before the first one."""

    def apply(self, side: str, delta: SideDelta) -> None:
        """Write rows that are live, delete those that are not, set the counts of others."""

    def set_position(self, position: DeltaPosition) -> None:
        """Remember the delta that was applied."""


def load_delta(target: DeltaTarget, folder: str, *, base: str = "") -> DeltaPosition:
    """Apply a delta to the tables of a database.

    Args:
        target: the tables, which have the base and the deltas before this one.
        folder: of the delta.
        base: for the first delta, `export` in the manifest.json of the folder that was loaded.

    Raises:
        ContractError: it is not the delta after the last one: one is missing, it was applied
            already, or it belongs to another base or space.
        ConfigError: `base` is not given for the first delta.
        CorruptArtifactError: a file of it is damaged.
    """
    manifest, sides = read_delta(folder)
    with target.session():
        last = target.position()
        if last is None and not base:
            raise ConfigError(
                "it is not known which export was loaded",
                where=folder,
                todo="Give --base: `export` in the manifest.json of the folder that was loaded",
            )
        last = last or DeltaPosition(base, 0, base, manifest["space"])
        now = DeltaPosition(*(manifest[key] for key in ("base", "number", "hash", "space")))
        if now == last:
            raise ContractError(f"delta {now.number} was applied already", where=folder)
        wanted = (last.base, last.number + 1, last.hash, last.space)
        if (now.base, now.number, manifest["previous"], now.space) != wanted:
            raise ContractError(
                f"is delta {now.number} of another chain or space, or not the one after delta "
                f"{last.number}",
                where=folder,
                todo="Give all deltas after the base, each once, in order; or load a full export",
            )
        for side, delta in sides.items():
            target.apply(side, delta)
        target.set_position(now)
    return now


def _parts(delta: SideDelta) -> tuple[pa.Table, list[int]]:
    """Rows to write, and rows to delete."""
    live = delta.rows["live"]
    return delta.rows.filter(live), delta.rows["row"].filter(pc.invert(live)).to_pylist()


class PgvectorTables:
    """Tables of PostgreSQL with pgvector, over a psycopg connection."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    @contextlib.contextmanager
    def session(self) -> Iterator[None]:
        """A transaction that has the lock of the position."""
        with self._connection.transaction():
            self._connection.execute(
                f"CREATE TABLE IF NOT EXISTS {_POSITION} "
                "(base text, number bigint, hash text, space text)"
            )
            self._connection.execute(f"LOCK TABLE {_POSITION} IN EXCLUSIVE MODE")
            yield

    def position(self) -> DeltaPosition | None:
        """See `DeltaTarget`."""
        query = f"SELECT base, number, hash, space FROM {_POSITION}"
        found = self._connection.execute(query).fetchone()
        return DeltaPosition(*found) if found else None

    def apply(self, side: str, delta: SideDelta) -> None:
        """See `DeltaTarget`; other columns of a row stay as they are."""
        _check_side(side)
        rows, gone = _parts(delta)
        with self._connection.cursor() as cursor:
            cursor.execute(f"DELETE FROM {side} WHERE row = ANY(%s)", [gone])
            cursor.executemany(
                f"INSERT INTO {side} (row, id, count, embedding) VALUES (%s, %s, %s, %s) "
                "ON CONFLICT (row) DO UPDATE SET id = EXCLUDED.id, count = EXCLUDED.count, "
                "embedding = EXCLUDED.embedding",
                [
                    (one["row"], one["id"], one["count"], _literal(one["vector"]))
                    for batch in rows.to_batches(1 << 12)
                    for one in batch.to_pylist()
                ],
            )
            cursor.executemany(
                f"UPDATE {side} SET count = %s WHERE row = %s",
                list(zip(*(delta.counts[c].to_pylist() for c in ("count", "row")), strict=True)),
            )

    def set_position(self, position: DeltaPosition) -> None:
        """See `DeltaTarget`."""
        self._connection.execute(f"DELETE FROM {_POSITION}")
        values = list(asdict(position).values())
        self._connection.execute(f"INSERT INTO {_POSITION} VALUES (%s, %s, %s, %s)", values)


def _literal(vector: list[float]) -> str:
    return f"[{','.join(map(repr, vector))}]"


class QdrantCollections:
    """Collections of Qdrant, over its client."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def session(self) -> AbstractContextManager[None]:
        """Nothing: one process at a time is to apply deltas."""
        return contextlib.nullcontext()

    def position(self) -> DeltaPosition | None:
        """See `DeltaTarget`."""
        if not self._client.collection_exists(_POSITION):
            return None
        found = self._client.retrieve(_POSITION, [0], with_payload=True)
        return DeltaPosition(**found[0].payload) if found else None

    def apply(self, side: str, delta: SideDelta) -> None:
        """See `DeltaTarget`; other keys of a payload stay as they are."""
        from qdrant_client import models

        rows, gone = _parts(delta)
        for start in range(0, len(gone), _POINTS):
            chosen = models.PointIdsList(points=gone[start : start + _POINTS])
            self._client.delete(side, chosen)
        for batch in rows.to_batches(_POINTS):
            every = {one["row"]: one for one in batch.to_pylist()}
            known = {one.id for one in self._client.retrieve(side, list(every), with_payload=False)}
            points = [
                models.PointStruct(id=row, vector=one["vector"], payload=_payload(one))
                for row, one in every.items()
                if row not in known
            ]
            if points:
                self._client.upsert(side, points)
            moved = [models.PointVectors(id=row, vector=every[row]["vector"]) for row in known]
            if moved:
                self._client.update_vectors(side, moved)
            for row in known:
                self._client.set_payload(side, _payload(every[row]), points=[row])
        for one in delta.counts.to_pylist():
            self._client.set_payload(side, {"count": one["count"]}, points=[one["row"]])

    def set_position(self, position: DeltaPosition) -> None:
        """See `DeltaTarget`."""
        from qdrant_client import models

        if not self._client.collection_exists(_POSITION):
            params = models.VectorParams(size=1, distance=models.Distance.DOT)
            self._client.create_collection(_POSITION, vectors_config=params)
        point = models.PointStruct(id=0, vector=[0.0], payload=asdict(position))
        self._client.upsert(_POSITION, [point])


def _payload(one: Mapping[str, Any]) -> dict[str, Any]:
    return {"id": one["id"], "count": one["count"]}


class LanceTables:
    """Tables of a LanceDB database, by its folder or URL."""

    def __init__(self, uri: str) -> None:
        os.environ.setdefault("LANCE_LOG", "error")  # it would warn that a table is new
        import lancedb

        self._database = lancedb.connect(uri)

    def session(self) -> AbstractContextManager[None]:
        """Nothing: one process at a time is to apply deltas."""
        return contextlib.nullcontext()

    def position(self) -> DeltaPosition | None:
        """See `DeltaTarget`."""
        try:
            table = self._database.open_table(_POSITION)
        except (FileNotFoundError, ValueError):
            return None
        found = table.to_arrow().to_pylist()
        return DeltaPosition(**found[0]) if found else None

    def apply(self, side: str, delta: SideDelta) -> None:
        """See `DeltaTarget`; titles and categories of a row stay, new rows have none.

        Raises:
            InputError: the table has other columns than an export, or numbers with a scale.
        """
        table = self._database.open_table(side)
        schema = table.schema
        payload = [name for name in schema.names if name not in _COLUMNS]
        if set(schema.names) - set(payload) != _COLUMNS or set(payload) - {f.name for f in FIELDS}:
            raise InputError(f"table '{side}' has other columns than an export")
        if pa.types.is_integer(schema.field("vector").type.value_type):
            raise InputError(f"table '{side}' has whole numbers, whose scale may be another now")
        rows, gone = _parts(delta)
        if gone:
            table.delete(f"row IN ({', '.join(map(str, gone))})")
        if rows.num_rows:
            new = _with_payload(rows, table, payload).select(schema.names).cast(schema)
            merge = table.merge_insert("row").when_matched_update_all()
            merge.when_not_matched_insert_all().execute(new)
        for one in delta.counts.to_pylist():
            table.update(where=f"row = {one['row']}", values={"count": one["count"]})

    def set_position(self, position: DeltaPosition) -> None:
        """See `DeltaTarget`."""
        rows = pa.Table.from_pylist([asdict(position)])
        self._database.create_table(_POSITION, data=rows, mode="overwrite")


def _with_payload(rows: pa.Table, table: Any, payload: list[str]) -> pa.Table:
    """Rows with columns of the table's payload, as the table has them; null of new rows."""
    if not payload:
        return rows
    numbers = ", ".join(map(str, rows["row"].to_pylist()))
    query = table.search().where(f"row IN ({numbers})").select(["row", *payload])
    known = query.limit(rows.num_rows).to_arrow()
    position = pc.index_in(rows["row"], value_set=known["row"].combine_chunks())
    for name in payload:
        rows = rows.append_column(table.schema.field(name), known[name].take(position))
    return rows


def _check_side(side: str) -> None:
    if side not in ("users", "items"):
        raise ContractError(f"a delta has no side '{side}'")
