"""A navigable graph over scalar codes of a byte per coordinate, its answers reranked.

Scalar quantization to the range of each coordinate, as in FAISS's "HNSW32_SQ8,RFlat".

Legend: B queries, k answers each, N items, D coordinates, E coordinates after padding.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import faiss

from embedmill.pipeline.config import IndexConfig
from embedmill.pipeline.index import cost
from embedmill.pipeline.index.kinds.hnsw import (
    Hnsw,
    HnswIndex,
    build_comparisons,
    link_bytes,
    link_items,
)
from embedmill.pipeline.index.kinds.padding import padded, padded_dim
from embedmill.pipeline.index.kinds.reranking import (
    reranking_bytes,
    reranking_params,
    with_empty_reranking,
)
from embedmill.pipeline.index.searchable import Floats, K, Rows

__all__ = ["HnswSq8", "HnswSq8Index"]

# Codes are padded to whole registers: otherwise FAISS compares one coordinate at a time, and took
# 170 s instead of 38 to link 396,000 items of 50 coordinates.
_REGISTER = 16
# Graphs that are candidates beside the default, unless the config names one. The first keeps all
# links that are found: on Fashion-MNIST it reaches the same recall in fewer steps, elsewhere in
# more. The second has half as many links, built with more effort: fewer bytes to fetch at each
# step, which decides in large catalogues.
_ALL_LINKS = {"ef_construction": 40}
_FEW_LINKS = {"m": 16, "ef_construction": 110}


class HnswSq8Index(HnswIndex):
    """A graph over codes, and reranking."""

    def variants(self) -> list[dict[str, int]]:
        """How many candidates per answer are reranked; codes so fine misplace few."""
        if not self.parameters["refine_bits"]:
            return [{}]
        return [{"refine": times} for times in (1, 2, 4)]

    def cost_us(self, query_BD: Floats, k: int, items: int = 0) -> float:
        """Codes along the walk as of `HnswIndex`, and reranking; see `Tunable.cost_us`."""
        count, dim = items or self.items, padded_dim(query_BD.shape[1], _REGISTER)
        compared = self._comparisons(query_BD, k, items)
        walk = cost.graph_search_sq8(compared, dim, count * dim)
        reranked = k * self.parameters["refine"]
        return walk + cost.reranked(reranked, dim, self.parameters["refine_bits"])

    def _search(self, query_BD: Floats, k: int, setting: int) -> tuple[Floats, Rows]:
        return super()._search(padded(query_BD, _REGISTER), k, setting)

    def _vectors(self) -> Any:
        if isinstance(self._graph, faiss.IndexRefine):
            return faiss.downcast_index(self._graph.refine_index)
        return super()._vectors()

    def _params(self, ef_search: int, k: int) -> Any:
        # For fewer than ten answers, rerank as many candidates as for ten.
        reranked = min(self.parameters["refine"] * max(k, K), ef_search)
        params = super()._params(ef_search, k)
        return reranking_params(self._graph, params, max(1.0, reranked / k))


class HnswSq8(Hnsw):
    """A graph built and walked over codes, a quarter of the bytes to fetch at each step.

    `refine` times as many candidates as answers, but no more than the walk has kept, are reranked
    with `refine_bits` a coordinate.
    """

    index_class = HnswSq8Index
    min_trials = 3

    def plan(self, items: int, dim: int, config: IndexConfig) -> dict[str, int]:
        """As of `Hnsw`, and reranking."""
        given = config.hnsw
        return {
            **super().plan(items, dim, config),
            "refine": given.refine,
            "refine_bits": given.refine_bits,
        }

    def candidates(self, items: int, dim: int, config: IndexConfig) -> list[dict[str, int]]:
        """The finest reranking first; one of 8 bits would know no more than the codes do.

        Each with several graphs, unless the config names one.
        """
        plan, given = self.plan(items, dim, config), config.hnsw
        graphs: list[dict[str, int]] = [{}]
        if not given.m and not given.ef_construction:
            graphs += [_ALL_LINKS, {**_FEW_LINKS, "m": min(_FEW_LINKS["m"], plan["m"])}]
        return [{**plan, "refine_bits": bits, **graph} for bits in (32, 16, 0) for graph in graphs]

    def build_faiss(self, item_ND: Floats, parameters: Mapping[str, int], seed: int) -> Any:
        """Find the range of each coordinate, then link the codes; see `IndexKind.build`."""
        item_NE = padded(item_ND, _REGISTER)
        graph = faiss.IndexHNSWSQ(
            item_NE.shape[1],
            faiss.ScalarQuantizer.QT_8bit,  # type: ignore[arg-type]
            parameters["m"],
            faiss.METRIC_INNER_PRODUCT,
        )
        graph.hnsw.efConstruction = parameters["ef_construction"]
        reranked = with_empty_reranking(graph, item_NE.shape[1], parameters["refine_bits"])
        reranked.train(item_NE)
        return link_items(reranked, item_NE, seed)

    def estimate_bytes(self, items: int, dim: int, parameters: Mapping[str, int]) -> int:
        """A byte a coordinate, ranges, positions and links as of `Hnsw`, and reranking."""
        dim = padded_dim(dim, _REGISTER)
        reranking = reranking_bytes(items, dim, parameters["refine_bits"])
        return round(items * (dim + 8 + link_bytes(parameters)) + dim * 8) + reranking

    def build_seconds(self, items: int, dim: int, parameters: Mapping[str, int]) -> float:
        """As of `Hnsw`, over codes."""
        dim = padded_dim(dim, _REGISTER)
        compared = build_comparisons(parameters)
        return items * cost.graph_search_sq8(compared, dim, items * dim) * 1e-6
