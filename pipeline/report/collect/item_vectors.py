"""Items of a run, read from `export` in blocks: memory does not grow with the number of items.

Legend: N items of a block, D dimensions of the model.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from embedmill.pipeline.store.artifact import Artifact
from embedmill.pipeline.store.run import Run
from embedmill.pipeline.views.vectors import spec_of

__all__ = [
    "ItemBlock",
    "ItemVectors",
    "describe",
    "describe_rows",
    "open_items",
    "titles_and_categories",
]

_BLOCK_ROWS = 1 << 16

Metadata = dict[str, tuple[str, list[str]]]  # id → title, categories


@dataclass(frozen=True)
class ItemBlock:
    """Some items: rows [N], ids, counts of events [N], vectors [N, D], biases [N] or None."""

    rows: npt.NDArray[np.int64]
    ids: pa.Array
    counts: npt.NDArray[np.int64]
    vectors_ND: npt.NDArray[np.float32]
    bias: npt.NDArray[np.float32] | None

    def take(self, positions: Sequence[int] | npt.NDArray[np.int64]) -> ItemBlock:
        """The items at some positions of this block, in that order."""
        chosen = np.asarray(positions, np.int64)
        bias = None if self.bias is None else self.bias[chosen]
        ids = self.ids.take(pa.array(chosen))
        return ItemBlock(self.rows[chosen], ids, self.counts[chosen], self.vectors_ND[chosen], bias)

    @staticmethod
    def empty(items: ItemVectors) -> ItemBlock:
        """A block without items."""
        none, vectors_ND = np.empty(0, np.int64), np.empty((0, items.dim), np.float32)
        bias = np.empty(0, np.float32) if items.has_bias else None
        return ItemBlock(none, pa.array([], pa.string()), none, vectors_ND, bias)

    @staticmethod
    def concatenated(blocks: Sequence[ItemBlock]) -> ItemBlock:
        """Blocks, at least one, as one."""
        ids = pa.concat_arrays([b.ids for b in blocks])
        rows, counts, vectors_ND = (
            np.concatenate([getattr(b, name) for b in blocks])
            for name in ("rows", "counts", "vectors_ND")
        )
        biases = [b.bias for b in blocks if b.bias is not None]
        return ItemBlock(rows, ids, counts, vectors_ND, np.concatenate(biases) if biases else None)


@dataclass(frozen=True)
class ItemVectors:
    """Live items of a run: vectors from `export`, titles from `events` where it has them.

    `dim` is D; `has_bias` says whether blocks have biases.
    """

    export: Artifact
    events: Artifact
    dim: int
    has_bias: bool

    def blocks(self, *, vectors: bool = True) -> Iterator[ItemBlock]:
        """All live items by row; without `vectors` their D is 0."""
        for entry in self.export.files("items"):
            yield from self._blocks_of(entry.path, vectors=vectors)

    def _blocks_of(self, path: str, *, vectors: bool) -> Iterator[ItemBlock]:
        columns = ["row", "id", "count", "live", *(["vector"] if vectors else [])]
        columns += ["bias"] if self.has_bias else []
        for batch in self.export.batches(path, _BLOCK_ROWS, columns):
            yield self._block(batch.filter(batch.column("live")))

    def _block(self, batch: pa.RecordBatch) -> ItemBlock:
        vectors_ND = np.empty((batch.num_rows, 0), np.float32)
        if "vector" in batch.schema.names:
            flat = batch.column("vector").flatten().to_numpy(zero_copy_only=False)
            vectors_ND = flat.reshape(batch.num_rows, -1)[:, : self.dim]
        bias = batch.column("bias").to_numpy(zero_copy_only=False) if self.has_bias else None
        rows, counts = (batch.column(c).to_numpy(zero_copy_only=False) for c in ("row", "count"))
        return ItemBlock(rows, batch.column("id"), counts, vectors_ND, bias)

    def most_frequent(self, n: int) -> ItemBlock:
        """The `n` items with most events, equal ones by lower row."""
        best = np.empty((0, 2), np.int64)  # (-count, row)
        for entry in self.export.files("items"):
            for batch in self.export.batches(entry.path, _BLOCK_ROWS, ["row", "count", "live"]):
                live = batch.filter(batch.column("live"))
                count_N, row_N = (live.column(c).to_numpy() for c in ("count", "row"))
                both = np.concatenate((best, np.stack((-count_N, row_N), 1)))
                best = both[np.lexsort((both[:, 1], both[:, 0]))[:n]]
        return self.of_rows(best[:, 1].tolist())

    def of_rows(self, rows: Sequence[int]) -> ItemBlock:
        """These rows, distinct and live, in this order; opens only files that have some of them."""
        wanted, first = np.sort(np.array(rows, np.int64)), 0
        parts = [ItemBlock.empty(self)]
        for entry in self.export.files("items"):
            end = first + (entry.rows or 0)
            if np.searchsorted(wanted, first) < np.searchsorted(wanted, end):
                blocks = self._blocks_of(entry.path, vectors=True)
                parts += [b.take(np.flatnonzero(np.isin(b.rows, wanted))) for b in blocks]
            first = end
        # Files and the rows in them are in rising order, and so are the rows taken from them.
        return ItemBlock.concatenated(parts).take(np.searchsorted(wanted, rows))

    def metadata(self, ids: Iterable[str]) -> Metadata:
        """Title and categories of those of `ids` that have any."""
        return titles_and_categories(self.events, ids)

    def ids_by_title(self, titles: Sequence[str]) -> dict[str, list[str]]:
        """Each title → ids of the items that have it, whatever its case."""
        bearers: dict[str, list[str]] = {t.casefold(): [] for t in titles}
        for batch in _metadata_batches(self.events):
            columns = batch.select(["item", "title"]).to_pydict()
            for raw_id, title in zip(columns["item"], columns["title"], strict=True):
                if title.casefold() in bearers:
                    bearers[title.casefold()].append(raw_id)
        return {t: bearers[t.casefold()] for t in titles}


def open_items(run: Run) -> ItemVectors:
    """The items of a run whose `export` has finished."""
    export = run.artifact("export")
    spec = spec_of(export)
    # A softmax's bias says how frequent an item is, not how well it is liked: it is left out.
    has_bias = spec.bias and spec.objective == "rating"
    return ItemVectors(export, run.artifact("events"), spec.model_dim, has_bias)


def titles_and_categories(events: Artifact, ids: Iterable[str]) -> Metadata:
    """Title and categories of those of `ids` that have any in the log's metadata of items."""
    wanted = pa.array(sorted(set(ids)), pa.string())
    metadata: Metadata = {}
    for batch in _metadata_batches(events):
        for row in batch.filter(pc.is_in(batch.column("item"), wanted)).to_pylist():
            metadata.setdefault(row["item"], (row["title"], row["categories"] or []))
    return metadata


def _metadata_batches(events: Artifact) -> Iterator[pa.RecordBatch]:
    if events.has("items.parquet"):
        yield from events.batches("items.parquet", _BLOCK_ROWS)


def describe(row: int, raw_id: str, count: int, metadata: Metadata) -> dict[str, Any]:
    """An item as `data.json` has it; its title is its id where the log has none.

    Args:
        row: of its vector.
        raw_id: its id in the log.
        count: its events.
        metadata: titles and categories by id.
    """
    title, categories = metadata.get(raw_id, ("", []))
    return {
        "row": row,
        "id": raw_id,
        "count": count,
        "title": title or raw_id,
        "categories": categories,
    }


def describe_rows(items: ItemVectors, rows: set[int]) -> dict[int, dict[str, Any]]:
    """Each row → its item as of `describe`."""
    ids_and_counts: dict[int, tuple[str, int]] = {}
    for block in items.blocks(vectors=False):
        for i in np.flatnonzero(np.isin(block.rows, list(rows))).tolist():
            ids_and_counts[int(block.rows[i])] = (block.ids[i].as_py(), int(block.counts[i]))
        if len(ids_and_counts) == len(rows):
            break
    metadata = items.metadata(raw_id for raw_id, _ in ids_and_counts.values())
    return {row: describe(row, *pair, metadata) for row, pair in ids_and_counts.items()}
