"""Vectors of a run into a store that serves them, so that readers see all of a run or nothing.

A table is named after its content, and readers know it by an alias. It is written in batches, while
readers get the one before; then the alias is switched. Run again, a table that is whole is not
written, and one that was begun is written anew. Tables before the last one are removed.
"""

from __future__ import annotations

import contextlib
import importlib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from embedmill.pipeline.errors import ConfigError, EmbedmillError, MachineError
from embedmill.pipeline.formats.push.vector_store import Address, PushTable, VectorStore, not_whole
from embedmill.pipeline.formats.vector_table import IDS, VectorTable
from embedmill.pipeline.log import Progress
from embedmill.pipeline.store.run import Run
from embedmill.pipeline.views.items import ItemMetadata
from embedmill.schemas.manifest import digest

__all__ = ["VECTOR_STORES", "PushOptions", "VectorStoreKind", "push"]

_NAME = re.compile(r"[a-z][a-z0-9_]{0,30}")
_LAYOUT = 1  # of the tables: another one gives tables other names
_BATCH_ROWS = 2000


@dataclass(frozen=True)
class VectorStoreKind:
    """Where a store's class is, below `formats.push`; its package, and the extra that has it."""

    module: str
    name: str
    package: str
    extra: str

    def open(self, address: Address) -> VectorStore:
        """Connect.

        Raises:
            MachineError: the package is not installed.
        """
        if self.package and importlib.util.find_spec(self.package) is None:
            raise MachineError(
                f"push --to {address.kind} needs the package {self.package}",
                todo=f"pip install 'embedmill[{self.extra}]'",
            )
        module = importlib.import_module(f"embedmill.pipeline.formats.push.{self.module}")
        store: VectorStore = getattr(module, self.name)(address)
        return store


VECTOR_STORES: dict[str, VectorStoreKind] = {
    "postgresql": VectorStoreKind("into_postgres", "PostgresStore", "psycopg", "postgres"),
    "qdrant": VectorStoreKind("into_qdrant", "QdrantStore", "qdrant_client", "qdrant"),
    "milvus": VectorStoreKind("into_milvus", "MilvusStore", "pymilvus", "milvus"),
    "lance": VectorStoreKind("into_lance", "LanceStore", "lancedb", "lance"),
    "opensearch": VectorStoreKind("into_search_engine", "OpenSearchStore", "", ""),
    "elasticsearch": VectorStoreKind("into_search_engine", "ElasticsearchStore", "", ""),
}


@dataclass(frozen=True)
class PushOptions:
    """What readers find: aliases NAME_users and NAME_items, of these sides.

    `keep` is how many tables before the current one are kept.
    """

    name: str = "embedmill"
    sides: Sequence[str] = ("users", "items")
    keep: int = 1


def push(run: Run, to: str, options: PushOptions, progress: Progress) -> dict[str, Any]:
    """Load vectors of a run into a store, and let readers get them.

    Args:
        run: a run whose `export` has finished.
        to: URL of the store; its scheme is one of VECTOR_STORES.
        options: names, sides.
        progress: updated with the rows that are written.

    Returns:
        for each side its alias, table, rows, and whether it was written now.

    Raises:
        ConfigError: no such store, or a name that some store would not take.
        MachineError: the store fails; what readers get is unchanged.
    """
    address = Address.of(to)
    if address.kind not in VECTOR_STORES:
        raise ConfigError(f"no store '{address.kind}'; there are {', '.join(VECTOR_STORES)}")
    if not _NAME.fullmatch(options.name):
        raise ConfigError(
            f"'{options.name}' is no name of small letters, digits and _, at most 31",
            where="--name",
        )
    tables = {side: _table(run, side, options.name) for side in options.sides}
    aliases = {f"{options.name}_{side}": table.name for side, table in tables.items()}
    with _sentences(address):
        store = VECTOR_STORES[address.kind].open(address)
        try:
            written = {side: _load(store, table, progress) for side, table in tables.items()}
            before = store.current(list(aliases))
            if before != aliases:
                store.switch(aliases)
            _remove_older(store, aliases, before, options.keep)
        finally:
            store.close()
    return {
        side: {
            "alias": f"{options.name}_{side}",
            "table": table.name,
            "rows": table.count,
            "written": written[side],
        }
        for side, table in tables.items()
    }


@contextlib.contextmanager
def _sentences(address: Address) -> Iterator[None]:
    """Make a MachineError of whatever a store's client raises."""
    try:
        yield
    except EmbedmillError:
        raise
    except Exception as error:  # clients raise errors of any type
        line = (str(error).strip() or type(error).__name__).split("\n")[0]
        raise MachineError(
            f"the store fails: {line}",
            where=f"{address.kind}: {address.path or address.url}",
            todo="Check its address and credentials, and run the same command again: readers have "
            "what they had until all is there",
        ) from error


def _load(store: VectorStore, table: PushTable, progress: Progress) -> bool:
    """Write a table unless it is there, whole; returns whether it was written."""
    if store.count(table.name) == table.count:
        return False
    batches = table.batches

    def counted() -> Iterator[pa.RecordBatch]:
        done = 0
        for batch in batches():
            yield batch
            done += batch.num_rows
            progress.update(done, table.count, "rows")

    store.load(
        PushTable(table.name, table.dim, table.count, table.has_payload, table.schema, counted)
    )
    found = store.count(table.name)
    if found != table.count:
        raise not_whole(table, found)
    return True


def _table(run: Run, side: str, name: str) -> PushTable:
    export, events = run.artifact("export"), run.find("events")
    vectors = VectorTable(export, side, "float32", 1.0, events)
    items = ItemMetadata(events).sha256 if side == "items" else ""
    content = digest([_LAYOUT, export.manifest.content, items])[:12]
    element = pa.list_(pa.field("item", pa.float32(), nullable=False), vectors.dim)
    vector = pa.field("vector", element, nullable=False)
    schema = pa.schema([*IDS, *vectors.payload.fields, vector])
    return PushTable(
        f"{name}_{side}_{content}",
        vectors.dim,
        vectors.count,
        vectors.payload.exists,
        schema,
        _batches(vectors, schema),
    )


def _batches(table: VectorTable, schema: pa.Schema) -> Callable[[], Iterator[pa.RecordBatch]]:
    def batches() -> Iterator[pa.RecordBatch]:
        for whole in table.blocks():
            for block in whole.pieces(_BATCH_ROWS * table.dim):
                flat = pa.array(np.ascontiguousarray(block.vector_ND).reshape(-1))
                columns = [pa.array(block.row_N), block.ids, pa.array(block.count_N)]
                columns += table.payload.columns(block.ids)
                vector = pa.FixedSizeListArray.from_arrays(flat, type=schema.field("vector").type)
                yield pa.RecordBatch.from_arrays([*columns, vector], schema=schema)

    return batches


def _remove_older(
    store: VectorStore, aliases: dict[str, str], before: dict[str, str], keep: int
) -> None:
    """Remove tables that are neither current nor, with `keep`, the ones that were before."""
    kept = {*aliases.values(), *(before.values() if keep else ())}
    for alias, current in aliases.items():
        if before.get(alias) == current:
            continue  # nothing was switched: the table before is kept as it was
        own = re.compile(rf"{re.escape(alias)}_[0-9a-f]{{12}}")
        for name in store.tables(f"{alias}_"):
            if own.fullmatch(name) and name not in kept:
                store.drop(name)
