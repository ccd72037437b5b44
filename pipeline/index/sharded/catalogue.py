"""The items of a large catalogue, a part at a time: what tasks read, and what they find in it.

A part is one file of `export`, whatever the number of workers; a catalogue that is too large to
be held is only ever looked at in parts.

Legend: B queries, k answers each, N items of a part, M best ones kept, R places, D coordinates.
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import faiss
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from embedmill.pipeline.index.contract import Floats, Rows, threads
from embedmill.pipeline.index.measure import Doubles, Truth, rescore
from embedmill.pipeline.index.sharded.task_pool import Pool
from embedmill.pipeline.views.vectors import RANGE, Vectors, part_path, to_matrix

__all__ = ["Catalogue", "Part", "PartedTruth", "grouped", "live_vectors", "truths_of"]

# Answers kept beside the k best, so that items as good as the k-th are known.
_SPARE = 32
# Queries compared with a part at once.
_QUERIES = 512


@dataclass(frozen=True)
class Part:
    """A file of vectors: its number and first row, and its live items.

    `place` is that of its first live item among all live ones, `items` how many there are.
    """

    number: int
    first: int
    place: int
    items: int


@dataclass(frozen=True)
class Catalogue:
    """All live items by part; parts without any are left out."""

    vectors: Vectors
    parts: tuple[Part, ...]

    @staticmethod
    def of(vectors: Vectors) -> Catalogue:
        """Counts the live items of each file."""
        found, place = [], 0
        for number in range(-(-vectors.count // RANGE)):
            table = vectors.export.read_table(part_path(vectors.side, number), ["live"])
            items = int(table["live"].to_numpy().sum())
            if items:
                found.append(Part(number, number * RANGE, place, items))
            place += items
        return Catalogue(vectors, tuple(found))

    @property
    def items(self) -> int:
        """Live items in all."""
        return sum(part.items for part in self.parts)

    @property
    def dim(self) -> int:
        """D."""
        return self.vectors.dim

    def live_ids(self, part: Part) -> pa.Table:
        """Columns row and id of the live items of a part."""
        path = part_path(self.vectors.side, part.number)
        table = self.vectors.export.read_table(path, ["id", "live"])
        live = table["live"].to_numpy().astype(bool)
        ids = table["id"].filter(pa.array(live))
        return pa.table({"row": part.first + np.flatnonzero(live), "id": ids})

    def gather(self, place_R: Rows) -> Floats:
        """Vectors of some places, float32 [R, D]; reads each part that has one."""
        found_RD = np.empty((len(place_R), self.dim), np.float32)
        starts = [part.place for part in self.parts]
        part_R = np.searchsorted(starts, place_R, side="right") - 1
        for one in np.unique(part_R):
            at, part = np.flatnonzero(part_R == one), self.parts[one]
            found_RD[at] = live_vectors(self.vectors, part)[1][place_R[at] - part.place]
        return found_RD


def live_vectors(vectors: Vectors, part: Part) -> tuple[Rows, Floats]:
    """Rows and vectors of the live items of a part, int64 [N] and float32 [N, D]."""
    table = vectors.export.read_table(part_path(vectors.side, part.number), ["live", "vector"])
    live = table["live"].to_numpy().astype(bool)
    item_ND = to_matrix(table["vector"], vectors.dim)
    return part.first + np.flatnonzero(live), item_ND if live.all() else item_ND[live]


def grouped(parts: Sequence[Part], count: int) -> list[tuple[Part, ...]]:
    """Parts cut into at most so many runs of about as many items each; pure."""
    ends = np.cumsum([part.items for part in parts]).tolist()
    total = ends[-1] if ends else 0
    cuts = [bisect.bisect_left(ends, total * cut / count) + 1 for cut in range(1, count)]
    bounds = sorted({0, *(min(cut, len(parts)) for cut in cuts), len(parts)})
    return [tuple(parts[a:b]) for a, b in itertools.pairwise(bounds)]


@dataclass(frozen=True)
class PartedTruth(Truth):
    """A truth over items that are not at hand: the best places [B, M] and their scores.

    An answer is right where it is one of these and reaches the k-th score. Where all M do, and
    others may too, vectors of the answers are fetched.
    """

    catalogue: Catalogue
    place_BM: Rows
    score_BM: Doubles

    def right(self, place_Bk: Rows, item_ND: Floats) -> NDArray[np.bool_]:
        """See `Truth.right`; `item_ND` is not looked at."""
        good_BM = (self.score_BM >= self.least_B[:, None] - self.slack_B[:, None]) & (
            self.place_BM >= 0
        )
        among = np.where(good_BM, self.place_BM, -2)
        found: NDArray[np.bool_] = (place_Bk[:, :, None] == among[:, None, :]).any(axis=2)
        open_ = np.flatnonzero(good_BM.all(axis=1) & (place_Bk >= 0).any(axis=1))
        if len(open_) and self.place_BM.shape[1] < self.catalogue.items:
            place, at = np.unique(place_Bk[open_], return_inverse=True)
            item_RD = self.catalogue.gather(np.maximum(place, 0))
            some = replace(self, query_BD=self.query_BD[open_], least_B=self.least_B[open_])
            reached = Truth.right(some, at.reshape(-1, place_Bk.shape[1]), item_RD)
            found[open_] = reached & (place_Bk[open_] >= 0)
        return found


@dataclass(frozen=True)
class _Asked:
    """A task of `truths_of`."""

    vectors: Vectors
    part: Part
    query_BD: Floats
    most: int


def truths_of(
    catalogue: Catalogue, pool: Pool, queries: Sequence[Floats], k: int
) -> list[PartedTruth]:
    """Exact answers to several sets of queries, compared with all items part by part."""
    query_BD = np.concatenate(queries)
    k = min(k, catalogue.items)
    most = min(k + _SPARE, catalogue.items)
    score_BM = np.full((len(query_BD), most), -np.inf)
    place_BM = np.full((len(query_BD), most), -1, np.int64)
    asked = [_Asked(catalogue.vectors, part, query_BD, most) for part in catalogue.parts]
    for score, place in pool.map(_best, asked):
        score_BA = np.concatenate((score_BM, score), axis=1)
        place_BA = np.concatenate((place_BM, place), axis=1)
        order = np.lexsort((place_BA, -score_BA), axis=1)[:, :most]
        score_BM = np.take_along_axis(score_BA, order, 1)
        place_BM = np.take_along_axis(place_BA, order, 1)
    ends = np.cumsum([len(some) for some in queries])[:-1]
    cut = [np.split(array, ends) for array in (query_BD, score_BM, place_BM)]
    return [
        PartedTruth(q, s[:, k - 1] if k else np.empty(len(q)), k, catalogue, p, s)
        for q, s, p in zip(*cut, strict=True)
    ]


def _best(task: _Asked) -> tuple[Doubles, Rows]:
    """The best of a part for each query: scores float64 and places, [B, at most M]."""
    _, item_ND = live_vectors(task.vectors, task.part)
    held = min(task.most, len(item_ND))
    score_BM = np.empty((len(task.query_BD), held))
    place_BM = np.empty((len(task.query_BD), held), np.int64)
    with threads(1):
        for first in range(0, len(task.query_BD), _QUERIES):
            at = slice(first, first + _QUERIES)
            query_BD = np.ascontiguousarray(task.query_BD[at])
            _, place_BM[at] = faiss.knn(query_BD, item_ND, held, metric=faiss.METRIC_INNER_PRODUCT)
            score_BM[at] = rescore(query_BD, place_BM[at], item_ND)
    return score_BM, place_BM + task.part.place
