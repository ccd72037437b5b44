"""A navigable graph over the items (Malkov and Yashunin, arXiv 1603.09320).

Legend: B queries, k answers each, N items, D coordinates.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, Self

import faiss
import numpy as np

from embedmill.pipeline.config import IndexConfig
from embedmill.pipeline.index import cost
from embedmill.pipeline.index.contract import Floats, Index, Rows, threads
from embedmill.pipeline.index.kinds.inverted import SMALL, centroids
from embedmill.pipeline.index.kinds.reranking import keep

__all__ = ["Hnsw", "link_bytes", "linked", "links_sought"]

# To be asked for a quarter of the catalogue is to be asked for a look at all of it: a walk
# would be slower, and would miss items that no link leads to.
_LARGE = 4
_WIDEST = 4096
# Of `m` and `ef_construction`, where none is given.
_LINKS = 32
_CONSTRUCTION = 64
# Items a list has on average, of the lists in whose order items lie.
_TOGETHER = 1000


class Hnsw(Index):
    """Links from each item to those of largest inner product; a search walks them.

    An item keeps up to 2 m links; only of more are those dropped that lead the same way, so
    that `ef_construction` below 2 m drops few.

    Items lie in the order of coarse lists, so that those a walk visits after each other are near
    each other in memory as well; a map leads back to rows. Of 2 M items of 32 coordinates 1.4
    times as many searches came back in a second.

    The inner product is no distance. Links by the distance of items with one coordinate more,
    which makes all lengths equal (Bachrach et al., RecSys 2014), were tried twice and found
    less on all but one set (docs/decisions/0032-graph-indexes.md). Where lengths are so uneven
    that walks end among the long items, kinds with lists keep the promise.
    """

    knob = "ef_search"

    @staticmethod
    def plan(items: int, dim: int, config: IndexConfig) -> dict[str, int]:
        """As configured; a node cannot have more links than there are items."""
        return {
            "m": max(2, min(config.hnsw.m or _LINKS, items)),
            "ef_construction": config.hnsw.ef_construction or _CONSTRUCTION,
            "ef_search": config.hnsw.ef_search,
        }

    @classmethod
    def build(cls, item_ND: Floats, parameters: Mapping[str, int], seed: int) -> Self:
        """Link the items."""
        graph = faiss.IndexHNSWFlat(item_ND.shape[1], parameters["m"], faiss.METRIC_INNER_PRODUCT)
        graph.hnsw.efConstruction = parameters["ef_construction"]
        return cls(linked(graph, item_ND, seed), parameters)

    @staticmethod
    def estimate(items: int, dim: int, parameters: Mapping[str, int]) -> int:
        """Vectors, rows, 2 m links on the ground level and m on each above (one item in m)."""
        return round(items * (dim * 4 + 8 + link_bytes(parameters)))

    @staticmethod
    def work(items: int, dim: int, parameters: Mapping[str, int]) -> float:
        """About as many comparisons an item as links are kept open, times a few."""
        return items * cost.walked(links_sought(parameters), dim, items * dim * 4) * 1e-6

    def limits(self) -> tuple[int, int]:
        """Ten to 4,096, or to a quarter of the items."""
        return 10, max(10, min(_WIDEST, self.engine.ntotal // _LARGE))

    def microseconds(self, query_BD: Floats, k: int, items: int = 0) -> float:
        """Comparisons along the walk: with the fourth root of the items at equal recall.

        (The logarithm of the paper, section 4.2, holds for a walk of equal width, and among more
        items it must be wider. The root is an assumption.)
        """
        held, dim = items or self.engine.ntotal, query_BD.shape[1]
        return cost.walked(self._walked(query_BD, k, items), dim, held * dim * 4)

    def _walked(self, query_BD: Floats, k: int, items: int) -> float:
        """Comparisons of a query among so many items, 0 for those it has."""
        held = self.engine.ntotal
        return self._compared(query_BD, k) * float(((items or held) / held) ** 0.25)

    def _compared(self, query_BD: Floats, k: int) -> float:
        """Items that a query compares on average."""
        if k * _LARGE >= self.engine.ntotal:
            return float(self.engine.ntotal)
        stats = faiss.cvar.hnsw_stats  # type: ignore[attr-defined]
        stats.reset()
        self.search(query_BD, k)
        return float(stats.ndis) / max(1, len(query_BD))

    def _search(self, query_BD: Floats, k: int, setting: int) -> tuple[Floats, Rows]:
        if k * _LARGE >= self.engine.ntotal:
            score_Bk, place_Bk = self._vectors().search(query_BD, k)
            return score_Bk, np.where(place_Bk < 0, -1, self._row_N[place_Bk])
        effort = max(self._for_more(setting or self.parameters["ef_search"], k), k)
        params = self._made.get((effort, k))
        if params is None:
            params = self._made[effort, k] = self._params(effort, k)
        score_Bk, row_Bk = self.engine.search(query_BD, k, params=params)
        return score_Bk, row_Bk

    @functools.cached_property
    def _made(self) -> dict[tuple[int, int], Any]:
        """Parameters of searches so far: to make them takes as long as a short walk."""
        return {}

    @functools.cached_property
    def _row_N(self) -> Rows:  # noqa: N802 (a shape)
        """Of the item in each place."""
        return faiss.vector_to_array(self.engine.id_map)

    @functools.cached_property
    def _inner(self) -> Any:
        """The engine of places."""
        return faiss.downcast_index(self.engine.index)

    def _vectors(self) -> Any:
        """What compares all items."""
        return faiss.downcast_index(self._inner.storage)

    def _params(self, effort: int, k: int) -> Any:
        """Of a search for k answers that keeps so many in sight."""
        return faiss.SearchParametersHNSW(efSearch=effort)  # type: ignore[attr-defined]


def linked(engine: Any, item_ND: Floats, seed: int) -> Any:
    """The FAISS graph, its items in the order of coarse lists, behind a map to rows.

    The same bytes on any number of threads: FAISS 1.15.1 links in batches, each seeing the graph
    before it, and merges their links in a fixed order (batch insertion of ParlayANN, Manohar et
    al., arXiv 2305.04359). All at once, for FAISS shuffles what it is given before: lists linked
    one after another found less (.948 of 2 M items in clusters instead of .960).
    """
    order_N = _together(item_ND, seed)
    mapped = faiss.IndexIDMap(engine)
    keep(mapped, engine)
    with threads(1 if item_ND.size < SMALL else 0):
        mapped.add_with_ids(item_ND[order_N], order_N)
    return mapped


def _together(item_ND: Floats, seed: int) -> Rows:
    """Rows in the order of lists by k-means, lists in the order of lists of their own."""
    if len(item_ND) <= _TOGETHER:
        return np.arange(len(item_ND))
    with threads(1 if item_ND.size < SMALL else 0):
        centroid_LD = centroids(item_ND, len(item_ND) // _TOGETHER, seed)
        nearest = faiss.IndexFlatL2(item_ND.shape[1])
        nearest.add(centroid_LD[_together(centroid_LD, seed)])
        _, list_N1 = nearest.search(item_ND, 1)
    return np.argsort(list_N1[:, 0], kind="stable")


def links_sought(parameters: Mapping[str, int]) -> float:
    """Comparisons that linking an item takes: fitted to builds of 60,000 images on one core."""
    return 6.5 * (parameters["ef_construction"] + parameters["m"])


def link_bytes(parameters: Mapping[str, int]) -> float:
    """Bytes of an item's links on all levels, of its level and of where they begin."""
    m = parameters["m"]
    return (2 * m + m / (m - 1)) * 4 + 12
