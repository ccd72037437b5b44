"""A navigable graph over the items: HNSW (Malkov and Yashunin, arXiv 1603.09320).

Legend: B queries, k answers each, N items, D coordinates, L coarse lists.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import faiss
import numpy as np

from embedmill.pipeline.config import IndexConfig
from embedmill.pipeline.index import cost
from embedmill.pipeline.index.faiss_threads import faiss_threads
from embedmill.pipeline.index.index_kind import IndexKind
from embedmill.pipeline.index.kinds.inverted import SINGLE_THREADED, train_centroids
from embedmill.pipeline.index.kinds.reranking import keep_alive
from embedmill.pipeline.index.searchable import FaissIndex, Floats, Rows

__all__ = ["Hnsw", "HnswIndex", "build_comparisons", "link_bytes", "link_items"]

# If k >= n / 4, search exhaustively: walking the graph would be slower, and would miss items
# that no link leads to.
_EXHAUSTIVE = 4
_MAX_EF_SEARCH = 4096
# Defaults of `m` and `ef_construction`.
_LINKS = 32
_CONSTRUCTION = 64
# Mean number of items in a coarse list; items are stored in the order of these lists.
_ITEMS_PER_LIST = 1000


class HnswIndex(FaissIndex):
    """A graph behind a map from its nodes to positions; a search walks along its links."""

    search_parameter = "ef_search"

    def limits(self) -> tuple[int, int]:
        """Ten to 4,096, or to a quarter of the items."""
        return 10, max(10, min(_MAX_EF_SEARCH, self.items // _EXHAUSTIVE))

    def cost_us(self, query_BD: Floats, k: int, items: int = 0) -> float:
        """Comparisons along the walk, which grow with the fourth root of the number of items.

        (The logarithm of the paper, section 4.2, holds for equal `ef_search`; with more items,
        equal recall needs a greater one. The fourth root is an assumption.) See
        `Tunable.cost_us`.
        """
        count, dim = items or self.items, query_BD.shape[1]
        return cost.graph_search(self._comparisons(query_BD, k, items), dim, count * dim * 4)

    def _comparisons(self, query_BD: Floats, k: int, items: int) -> float:
        """Comparisons of a query, mean, among `items` items; 0 for the present number."""
        growth = float(((items or self.items) / self.items) ** 0.25)
        if k * _EXHAUSTIVE >= self.items:
            return self.items * growth
        stats = faiss.cvar.hnsw_stats  # type: ignore[attr-defined]
        stats.reset()
        self.search(query_BD, k)
        return float(stats.ndis) / max(1, len(query_BD)) * growth

    def _search(self, query_BD: Floats, k: int, setting: int) -> tuple[Floats, Rows]:
        if k * _EXHAUSTIVE >= self.items:
            score_Bk, node_Bk = self._vectors().search(query_BD, k)
            return score_Bk, np.where(node_Bk < 0, -1, self._position_N[node_Bk])
        ef_search = max(self._scaled_setting(setting or self.parameters["ef_search"], k), k)
        params = self._params_cache.get((ef_search, k))
        if params is None:
            params = self._params_cache[ef_search, k] = self._params(ef_search, k)
        score_Bk, position_Bk = self.faiss_index.search(query_BD, k, params=params)
        return score_Bk, position_Bk

    @functools.cached_property
    def _params_cache(self) -> dict[tuple[int, int], Any]:
        """Search parameters by ef_search and k: making them takes as long as a short walk."""
        return {}

    @functools.cached_property
    def _position_N(self) -> Rows:  # noqa: N802 (a shape)
        """The position of the item of each node."""
        return faiss.vector_to_array(self.faiss_index.id_map)

    @functools.cached_property
    def _graph(self) -> Any:
        """The FAISS index over nodes, behind the map."""
        return faiss.downcast_index(self.faiss_index.index)

    def _vectors(self) -> Any:
        """The flat FAISS index over nodes."""
        return faiss.downcast_index(self._graph.storage)

    def _params(self, ef_search: int, k: int) -> Any:
        """Parameters of a search for k answers."""
        return faiss.SearchParametersHNSW(efSearch=ef_search)  # type: ignore[attr-defined]


class Hnsw(IndexKind):
    """Links from each item to those of largest inner product; a search walks along them.

    An item keeps up to 2 m links; only where it would get more, those that lead in the direction
    of another are dropped, so that `ef_construction` below 2 m drops few.

    Items are stored in the order of coarse lists, so that those that a walk visits one after
    another are near each other in memory as well; a map leads back to positions. With 2 M items
    of 32 coordinates this gave 1.4 times as many searches per second.

    The inner product is no metric. Links by the distance of items with one more coordinate,
    which makes all lengths equal (Bachrach et al., RecSys 2014), were tried twice and found
    less on all but one set (docs/decisions/0032-graph-indexes.md). Where lengths differ so much
    that walks end among the long items, kinds with inverted lists reach the target recall.
    """

    index_class: type[HnswIndex] = HnswIndex

    def plan(self, items: int, dim: int, config: IndexConfig) -> dict[str, int]:
        """As configured; a node cannot have more links than there are items."""
        return {
            "m": max(2, min(config.hnsw.m or _LINKS, items)),
            "ef_construction": config.hnsw.ef_construction or _CONSTRUCTION,
            "ef_search": config.hnsw.ef_search,
        }

    def build_faiss(self, item_ND: Floats, parameters: Mapping[str, int], seed: int) -> Any:
        """Link the items; see `IndexKind.build`."""
        graph = faiss.IndexHNSWFlat(item_ND.shape[1], parameters["m"], faiss.METRIC_INNER_PRODUCT)
        graph.hnsw.efConstruction = parameters["ef_construction"]
        return link_items(graph, item_ND, seed)

    def estimate_bytes(self, items: int, dim: int, parameters: Mapping[str, int]) -> int:
        """Vectors, positions, 2 m links on the ground level and m on each above (1 item in m)."""
        return round(items * (dim * 4 + 8 + link_bytes(parameters)))

    def build_seconds(self, items: int, dim: int, parameters: Mapping[str, int]) -> float:
        """One walk per item."""
        compared = build_comparisons(parameters)
        return items * cost.graph_search(compared, dim, items * dim * 4) * 1e-6


def link_items(graph: Any, item_ND: Floats, seed: int) -> Any:
    """Add items to an empty FAISS graph in the order of coarse lists, behind a map to positions.

    The same bytes on any number of threads: FAISS 1.15.1 links in batches, each seeing the graph
    before it, and merges their links in a fixed order (batch insertion of ParlayANN, Manohar et
    al., arXiv 2305.04359). All items are added in one call, because FAISS shuffles them first:
    adding one list after another found less (.948 instead of .960 of 2 M items in clusters).
    """
    order_N = _coarse_order(item_ND, seed)
    mapped = faiss.IndexIDMap(graph)
    keep_alive(mapped, graph)
    with faiss_threads(1 if item_ND.size < SINGLE_THREADED else 0):
        mapped.add_with_ids(item_ND[order_N], order_N)
    return mapped


def _coarse_order(item_ND: Floats, seed: int) -> Rows:
    """Positions sorted by coarse list; the lists themselves are sorted in the same way."""
    if len(item_ND) <= _ITEMS_PER_LIST:
        return np.arange(len(item_ND))
    with faiss_threads(1 if item_ND.size < SINGLE_THREADED else 0):
        centroid_LD = train_centroids(item_ND, len(item_ND) // _ITEMS_PER_LIST, seed)
        nearest = faiss.IndexFlatL2(item_ND.shape[1])
        nearest.add(centroid_LD[_coarse_order(centroid_LD, seed)])
        _, list_N1 = nearest.search(item_ND, 1)
    return np.argsort(list_N1[:, 0], kind="stable")


def build_comparisons(parameters: Mapping[str, int]) -> float:
    """Comparisons to link one item: fitted to builds of 60,000 images on one core."""
    return 6.5 * (parameters["ef_construction"] + parameters["m"])


def link_bytes(parameters: Mapping[str, int]) -> float:
    """Bytes per item of its links on all levels, its level, and the offset of its links."""
    m = parameters["m"]
    return (2 * m + m / (m - 1)) * 4 + 12
