"""Live items of a run, read in blocks: memory does not grow with the number of items.

Legend: N items of a block, D dimensions of the model.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from embedmill.pipeline.store.run import Run
from embedmill.pipeline.views.items import ItemMetadata
from embedmill.pipeline.views.vectors import VectorBlock, Vectors, spec_of
from embedmill.schemas.report import Item

__all__ = ["ItemVectors", "describe", "describe_rows", "open_items"]

_BLOCK_ROWS = 1 << 16


@dataclasses.dataclass(frozen=True)
class ItemVectors:
    """Live items: vectors without the coordinate of the bias, titles where the log has them.

    `dim` is D; `has_bias` says whether blocks have biases.
    """

    vectors: Vectors
    metadata: ItemMetadata
    dim: int
    has_bias: bool

    def blocks(self, *, vectors: bool = True) -> Iterator[VectorBlock]:
        """All items by row; without `vectors` their D is 0."""
        for block in self.vectors.live_blocks(_BLOCK_ROWS, vectors=vectors, bias=self.has_bias):
            yield self._without_bias_coordinate(block)

    def of_rows(self, rows: Sequence[int]) -> VectorBlock:
        """These rows, distinct and live, in this order; opens only files that have some of them."""
        block = self.vectors.select(rows, _BLOCK_ROWS, bias=self.has_bias)
        return self._without_bias_coordinate(block)

    def most_frequent(self, n: int) -> VectorBlock:
        """The `n` items with most events, equal ones by lower row."""
        best = np.empty((0, 2), np.int64)  # (-count, row)
        for block in self.blocks(vectors=False):
            both = np.concatenate((best, np.stack((-block.count_N, block.row_N), 1)))
            best = both[np.lexsort((both[:, 1], both[:, 0]))[:n]]
        return self.of_rows(best[:, 1].tolist())

    def _without_bias_coordinate(self, block: VectorBlock) -> VectorBlock:
        return dataclasses.replace(block, vector_ND=block.vector_ND[:, : self.dim])


def open_items(run: Run) -> ItemVectors:
    """The items of a run whose `export` has finished."""
    export = run.artifact("export")
    spec = spec_of(export)
    # A softmax's bias says how frequent an item is, not how well it is liked: it is left out.
    has_bias = spec.bias and spec.objective == "rating"
    metadata = ItemMetadata(run.artifact("events"))
    return ItemVectors(Vectors.of(export, "items"), metadata, spec.model_dim, has_bias)


def describe(
    row: int, raw_id: str, count: int, metadata: Mapping[str, tuple[str, list[str]]]
) -> Item:
    """An item as the report shows it; its title is its id where the log has none.

    Args:
        row: of its vector.
        raw_id: its id in the log.
        count: its events.
        metadata: title and categories by id.
    """
    title, categories = metadata.get(raw_id, ("", []))
    return Item(row=row, id=raw_id, count=count, title=title or raw_id, categories=categories)


def describe_rows(items: ItemVectors, rows: set[int]) -> dict[int, Item]:
    """Each row → its item as of `describe`."""
    ids_and_counts: dict[int, tuple[str, int]] = {}
    for block in items.blocks(vectors=False):
        for i in np.flatnonzero(np.isin(block.row_N, list(rows))).tolist():
            ids_and_counts[int(block.row_N[i])] = (block.ids[i].as_py(), int(block.count_N[i]))
        if len(ids_and_counts) == len(rows):
            break
    metadata = items.metadata.describe(raw_id for raw_id, _ in ids_and_counts.values())
    return {row: describe(row, *pair, metadata) for row, pair in ids_and_counts.items()}
