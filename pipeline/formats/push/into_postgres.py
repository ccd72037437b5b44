"""PostgreSQL with pgvector: a view for each alias, switched in one transaction."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import psycopg
from psycopg import sql

from embedmill.pipeline.errors import InputError
from embedmill.pipeline.formats.push.vector_store import Address, PushTable

__all__ = ["PostgresStore"]

_WHOLE = "embedmill: whole"  # comment of a table that was loaded to its end
_MOST = 2000  # coordinates that pgvector's HNSW takes


class PostgresStore:
    """Credentials are libpq's: PGPASSWORD, ~/.pgpass. See `VectorStore`."""

    def __init__(self, address: Address) -> None:
        url = f"postgresql://{address.url.partition('://')[2]}"
        self._db: psycopg.Connection[Any] = psycopg.connect(url, autocommit=True)
        self._db.execute("SET client_min_messages = error")
        self._db.execute("CREATE EXTENSION IF NOT EXISTS vector")

    def count(self, name: str) -> int | None:
        """Of a table whose comment says that it is whole."""
        query = "SELECT obj_description(to_regclass(%s), 'pg_class')"
        (comment,) = self._one(query, [name])
        if comment != _WHOLE:
            return None
        (rows,) = self._one(sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(name)))
        return int(rows)

    def load(self, table: PushTable) -> None:
        """By COPY, a transaction for each batch; indices and the comment last."""
        name = sql.Identifier(table.name)
        payload = "title text NOT NULL, categories text[] NOT NULL," if table.has_payload else ""
        # Of two pushes of one content, the second waits, and then finds the table.
        self._db.execute("SELECT pg_advisory_lock(hashtext(%s))", [table.name])
        if self.count(table.name) == table.count:
            return
        with self._db.transaction():
            self._db.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(name))
            self._db.execute(
                sql.SQL(
                    "CREATE TABLE {} (row bigint PRIMARY KEY, id text NOT NULL, count bigint NOT "
                    "NULL, {} embedding vector({}) NOT NULL)"
                ).format(name, sql.SQL(payload), sql.Literal(table.dim))
            )
        for batch in table.batches():
            with (
                self._db.transaction(),
                self._db.cursor() as cursor,
                cursor.copy(sql.SQL("COPY {} FROM STDIN").format(name)) as copy,
            ):
                for record in batch.to_pylist():
                    copy.write_row(_row(record))
        with self._db.transaction():
            index = sql.SQL("CREATE INDEX ON {} USING hash (id)")
            self._db.execute(index.format(name))
            if table.has_payload:
                self._db.execute(sql.SQL("CREATE INDEX ON {} USING gin (categories)").format(name))
            if table.dim <= _MOST:
                hnsw = sql.SQL("CREATE INDEX ON {} USING hnsw (embedding vector_ip_ops)")
                self._db.execute(hnsw.format(name))
            comment = sql.SQL("COMMENT ON TABLE {} IS {}")
            self._db.execute(comment.format(name, sql.Literal(_WHOLE)))

    def current(self, aliases: list[str]) -> dict[str, str]:
        """The comments of the views say so."""
        found = {}
        for alias in aliases:
            (table,) = self._one("SELECT obj_description(to_regclass(%s), 'pg_class')", [alias])
            if table:
                found[alias] = str(table)
        return found

    def switch(self, aliases: Mapping[str, str]) -> None:
        """All views in one transaction; rights to a view that has other columns are lost."""
        with self._db.transaction():
            for alias, table in aliases.items():
                view, name = sql.Identifier(alias), sql.Identifier(table)
                select = sql.SQL("VIEW {} AS SELECT * FROM {}").format(view, name)
                try:
                    with self._db.transaction():
                        self._db.execute(sql.SQL("CREATE OR REPLACE ") + select)
                except psycopg.errors.InvalidTableDefinition:  # another dimension or payload
                    self._db.execute(sql.SQL("DROP VIEW {}").format(view))
                    self._db.execute(sql.SQL("CREATE ") + select)
                comment = sql.SQL("COMMENT ON VIEW {} IS {}")
                self._db.execute(comment.format(view, sql.Literal(table)))

    def tables(self, prefix: str) -> list[str]:
        """Those in the schema that new tables get into."""
        query = "SELECT tablename FROM pg_tables WHERE schemaname = current_schema()"
        found = self._db.execute(query + " AND starts_with(tablename, %s)", [prefix]).fetchall()
        return [str(name) for (name,) in found]

    def drop(self, name: str) -> None:
        """Remove a table."""
        self._db.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(sql.Identifier(name)))

    def close(self) -> None:
        """End the connection."""
        self._db.close()

    def _one(self, query: Any, given: list[Any] | None = None) -> tuple[Any, ...]:
        row = self._db.execute(query, given).fetchone()
        return row or (None,)


def _row(record: dict[str, Any]) -> list[Any]:
    if "\0" in record["id"]:
        raise InputError(
            f"an id has a NUL character, which PostgreSQL cannot store: {record['id']!r}",
            todo="Choose another store",
        )
    row = [record["row"], record["id"], record["count"]]
    if "title" in record:
        row += [_clean(record["title"]), [_clean(one) for one in record["categories"]]]
    return [*row, str(record["vector"])]


def _clean(text: str) -> str:
    return text.replace("\0", "")
