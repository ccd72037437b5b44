"""A finished index artifact, for searching.

Legend: B queries, K answers each, D coordinates.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from pipeline.artifact import Artifact
from pipeline.index.carrying import revive
from pipeline.index.contract import Floats, Rows, Searchable
from pipeline.index.kinds import kind_of
from pipeline.score import RowLists, hits, widths

__all__ = ["IndexReader", "open_index"]


@dataclass(frozen=True)
class IndexReader:
    """Searches an index; its answers are rows of the vocabulary, which map back to raw ids.

    `row_N` are the rows of the items by their place in the index, rising: not every row of
    the vocabulary is there.
    """

    artifact: Artifact
    spec: dict[str, Any]
    index: Searchable
    row_N: Rows

    @property
    def items(self) -> int:
        """Items in the index."""
        return int(self.spec["items"])

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
        score_Bk = np.full((len(query_BD), k), -np.inf, np.float32)
        row_Bk = np.full((len(query_BD), k), -1, np.int64)
        for chosen, width in widths(k, seen, self.items):
            at = chosen.numpy()
            score_CK, row_CK = self.search(query_BD[at], width)
            struck = hits(torch.from_numpy(row_CK), seen.select(chosen)).numpy()
            struck |= row_CK < 0
            # Stable: what is left keeps its order.
            order = np.argsort(struck, axis=1, kind="stable")[:, :k]
            kept = ~np.take_along_axis(struck, order, 1)
            held = order.shape[1]
            scores, rows = (np.take_along_axis(a, order, 1) for a in (score_CK, row_CK))
            score_Bk[at, :held] = np.where(kept, scores, -np.inf)
            row_Bk[at, :held] = np.where(kept, rows, -1)
        return score_Bk, row_Bk

    def ids(self, rows: Rows) -> list[str]:
        """Raw ids of rows that are in the index, in their order."""
        table = self.artifact.read_table("ids.parquet", ["id"])
        return list(table["id"].take(np.searchsorted(self.row_N, rows)).to_pylist())

    def _rows(self, place_Bk: Rows) -> Rows:
        """Rows of places in the index; -1 stays."""
        if not len(self.row_N):
            return place_Bk
        return np.where(place_Bk < 0, -1, self.row_N[place_Bk])


def open_index(artifact: Artifact) -> IndexReader:
    """The index of an artifact, its bytes checked before FAISS sees them.

    Raises:
        CorruptArtifactError: the bytes differ from the manifest's sha256.
    """
    spec = artifact.read_json("spec.json")
    kind = kind_of(spec["kind"])
    index = kind.load(artifact.read("items.faiss"), spec["parameters"])
    row_N = artifact.read_table("ids.parquet", ["row"])["row"].to_numpy()
    found = revive(artifact, spec, index) if spec.get("living") else index
    return IndexReader(artifact, spec, found, row_N)
