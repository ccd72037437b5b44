"""A finished index artifact, for searching by rows.

Legend: B queries, K answers each, N items in the index, D coordinates.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from embedmill.pipeline.errors import ContractError
from embedmill.pipeline.index.contract import Floats, Rows, Searchable
from embedmill.pipeline.index.incremental.carry_over import revive
from embedmill.pipeline.index.kinds import kind_of
from embedmill.pipeline.index.memory_map import map_index
from embedmill.pipeline.index.sharded.files import open_spread
from embedmill.pipeline.score import RowLists, hits, widths
from embedmill.pipeline.store.artifact import Artifact
from embedmill.pipeline.store.cache import checked

__all__ = ["IndexReader", "open_index"]


@dataclass(frozen=True)
class IndexReader:
    """Searches an index; its answers are rows of the vocabulary, which map back to raw ids."""

    artifact: Artifact
    spec: dict[str, Any]
    index: Searchable

    @property
    def items(self) -> int:
        """Items in the index."""
        return int(self.spec["items"])

    @functools.cached_property
    def row_N(self) -> Rows:  # noqa: N802 (a shape)
        """Rows of the items by their place in the index, rising.

        Not every row of the vocabulary is there.
        """
        found: Rows = self._column("row").to_numpy()
        return found

    @functools.cached_property
    def id_N(self) -> pa.ChunkedArray:  # noqa: N802 (a shape)
        """Raw ids of the items by their place in the index."""
        return self._column("id")

    def search(self, query_BD: Floats, k: int) -> tuple[Floats, Rows]:
        """Scores float32 [B, k] and rows int64 [B, k]; see `Index.search`."""
        score_Bk, place_Bk = self.index.search(query_BD, k)
        return score_Bk, self._rows(place_Bk)

    def unseen(self, query_BD: Floats, k: int, seen: RowLists) -> tuple[Floats, Rows]:
        """The k best items outside each query's list.

        An index cannot leave items out: it is asked for k and as many as the query has
        seen, rounded up to a power of two, and the seen ones are struck out.

        Returns:
            scores float32 [B, k] and rows int64 [B, k], -inf and -1 where there are no more.
        """
        score_Bk, row_Bk = nothing(len(query_BD), k)
        for chosen, width in widths(k, seen, self.items):
            at = chosen.numpy()
            score_CK, row_CK = self.search(query_BD[at], width)
            struck = hits(torch.from_numpy(row_CK), seen.select(chosen)).numpy()
            kept = first_kept(score_CK, row_CK, struck, k)
            held = kept[0].shape[1]
            score_Bk[at, :held], row_Bk[at, :held] = kept
        return score_Bk, row_Bk

    def places(self, rows: Rows) -> Rows:
        """Places in the index of rows that are in it."""
        found: Rows = np.searchsorted(self.row_N, rows)
        return found

    def places_of(self, raw: pa.Array) -> Rows:
        """Places of raw ids in the index; -1 where it has no such id."""
        found = pc.index_in(raw, value_set=self.id_N.combine_chunks(), skip_nulls=True)
        places: Rows = pc.fill_null(found, -1).to_numpy().astype(np.int64)
        return places

    def ids(self, rows: Rows) -> list[str]:
        """Raw ids of rows that are in the index, in their order."""
        return list(self.id_N.take(pa.array(self.places(rows))).to_pylist())

    def _rows(self, place_Bk: Rows) -> Rows:
        """Rows of places in the index; -1 stays."""
        if not len(self.row_N):
            return place_Bk
        return np.where(place_Bk < 0, -1, self.row_N[place_Bk])

    def _column(self, name: str) -> pa.ChunkedArray:
        column = self.artifact.read_table("ids.parquet", [name])[name]
        if len(column) != self.items:
            raise ContractError(
                f"names {len(column):,} items, the index holds {self.items:,}",
                where=self.artifact.url("ids.parquet"),
            )
        return column


def nothing(queries: int, k: int) -> tuple[Floats, Rows]:
    """Answers yet to be found: scores -inf and rows -1, [queries, k]."""
    return np.full((queries, k), -np.inf, np.float32), np.full((queries, k), -1, np.int64)


def first_kept(score_CK: Floats, row_CK: Rows, struck_CK: Any, k: int) -> tuple[Floats, Rows]:
    """The first k of each ranking that are not struck out; -inf and -1 fill it up."""
    struck_CK = struck_CK | (row_CK < 0)
    # Stable: what is left keeps its order.
    order = np.argsort(struck_CK, axis=1, kind="stable")[:, :k]
    kept = ~np.take_along_axis(struck_CK, order, 1)
    scores, rows = (np.take_along_axis(a, order, 1) for a in (score_CK, row_CK))
    return np.where(kept, scores, -np.inf).astype(np.float32), np.where(kept, rows, -1)


def open_index(artifact: Artifact, *, again: bool = False, keep: bool = False) -> IndexReader:
    """The index of an artifact; its bytes are checked before FAISS sees them.

    On a local disk the file is mapped, not read.

    Args:
        artifact: a finished index.
        again: hash the file even where it was hashed before and has not been written to.
        keep: a file that is elsewhere goes into the cache, for the next time.

    Raises:
        CorruptArtifactError: the bytes differ from the manifest's sha256.
        ContractError: the index holds other than what its spec says.
    """
    spec = artifact.read_json("spec.json")
    if spec.get("shards"):
        return IndexReader(artifact, spec, open_spread(artifact, spec, again=again))
    kind = kind_of(spec["kind"])
    if keep or artifact.storage.is_local:
        path = checked(artifact, "items.faiss", again=again)
        index = map_index(path, kind, spec["parameters"])
    else:
        index = kind.load(artifact.read("items.faiss"), spec["parameters"])
    if spec.get("living"):
        return IndexReader(artifact, spec, revive(artifact, spec, index))
    if index.engine.ntotal != spec["items"]:
        raise ContractError(
            f"holds {index.engine.ntotal:,} items, its spec says {spec['items']:,}",
            where=artifact.url("items.faiss"),
        )
    return IndexReader(artifact, spec, index)
