"""A navigable graph walked over codes of a byte a coordinate, its answers ranked anew.

Scalar quantization to the range of each coordinate, as of FAISS's "HNSW32_SQ8,RFlat".

Legend: B queries, k answers each, N items, D coordinates, E padded ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import faiss

from embedmill.pipeline.config import IndexConfig
from embedmill.pipeline.index import cost
from embedmill.pipeline.index.contract import Floats, K, Rows
from embedmill.pipeline.index.kinds.hnsw import Hnsw, link_bytes, linked, links_sought
from embedmill.pipeline.index.kinds.padding import padded, padded_dim
from embedmill.pipeline.index.kinds.reranking import finer_behind, refine_bytes, searched_anew

__all__ = ["HnswSq8"]

# Codes that fill whole registers; of others FAISS compares one coordinate at a time, and took
# 170 s instead of 38 to link 396,000 items of 50 coordinates.
_REGISTER = 16
# Graphs tried besides, where nothing else is asked for. One keeps all links that are found, which
# leads on Fashion-MNIST to the same recall in fewer steps, and elsewhere in more. One has half as
# many links, sought further: fewer bytes to fetch at each step, which decides in large catalogues.
_ALL_LINKS = {"ef_construction": 40}
_FEW_LINKS = {"m": 16, "ef_construction": 110}


class HnswSq8(Hnsw):
    """Links made and walked over codes, a quarter of the bytes to fetch at each step.

    `refine` times the answers wanted, as far as the walk has seen so many, are ranked anew with
    `refine_bits` a coordinate.
    """

    tries = 3

    @staticmethod
    def plan(items: int, dim: int, config: IndexConfig) -> dict[str, int]:
        """As configured; what ranks anew besides."""
        asked = config.hnsw
        return {
            **Hnsw.plan(items, dim, config),
            "refine": asked.refine,
            "refine_bits": asked.refine_bits,
        }

    @classmethod
    def candidates(cls, items: int, dim: int, config: IndexConfig) -> list[dict[str, int]]:
        """The finest ranking anew first; one of 8 bits would know no more than the codes do.

        Each of all graphs, unless one is asked for.
        """
        plan, asked = cls.plan(items, dim, config), config.hnsw
        graphs: list[dict[str, int]] = [{}]
        if not asked.m and not asked.ef_construction:
            graphs += [_ALL_LINKS, {**_FEW_LINKS, "m": min(_FEW_LINKS["m"], plan["m"])}]
        return [{**plan, "refine_bits": bits, **graph} for bits in (32, 16, 0) for graph in graphs]

    @classmethod
    def build(cls, item_ND: Floats, parameters: Mapping[str, int], seed: int) -> Self:
        """Learn the range of each coordinate, then link the codes."""
        item_NE = padded(item_ND, _REGISTER)
        graph = faiss.IndexHNSWSQ(
            item_NE.shape[1],
            faiss.ScalarQuantizer.QT_8bit,  # type: ignore[arg-type]
            parameters["m"],
            faiss.METRIC_INNER_PRODUCT,
        )
        graph.hnsw.efConstruction = parameters["ef_construction"]
        engine = finer_behind(graph, item_NE.shape[1], parameters["refine_bits"])
        engine.train(item_NE)
        return cls(linked(engine, item_NE, seed), parameters)

    @staticmethod
    def estimate(items: int, dim: int, parameters: Mapping[str, int]) -> int:
        """A byte a coordinate, ranges, rows and links as of `Hnsw`, and what ranks anew."""
        wide = padded_dim(dim, _REGISTER)
        finer = refine_bytes(items, wide, parameters["refine_bits"])
        return round(items * (wide + 8 + link_bytes(parameters)) + wide * 8) + finer

    @staticmethod
    def work(items: int, dim: int, parameters: Mapping[str, int]) -> float:
        """As of `Hnsw`, with codes."""
        wide = padded_dim(dim, _REGISTER)
        return items * cost.walked_codes(links_sought(parameters), wide, items * wide) * 1e-6

    def variants(self) -> list[dict[str, int]]:
        """How many are ranked anew: of codes so fine few are misplaced."""
        if not self.parameters["refine_bits"]:
            return [{}]
        return [{"refine": times} for times in (1, 2, 4)]

    def microseconds(self, query_BD: Floats, k: int, items: int = 0) -> float:
        """Codes along the walk as of `Hnsw`, and what is ranked anew."""
        held, wide = self.engine.ntotal, padded_dim(query_BD.shape[1], _REGISTER)
        compared = self._walked(query_BD, k, items)
        walk = cost.walked_codes(compared, wide, (items or held) * wide)
        again = k * self.parameters["refine"]
        return walk + cost.looked_up(again, wide, self.parameters["refine_bits"])

    def _search(self, query_BD: Floats, k: int, setting: int) -> tuple[Floats, Rows]:
        return super()._search(padded(query_BD, _REGISTER), k, setting)

    def _vectors(self) -> Any:
        if isinstance(self._inner, faiss.IndexRefine):
            return faiss.downcast_index(self._inner.refine_index)
        return super()._vectors()

    def _params(self, effort: int, k: int) -> Any:
        # For fewer than ten answers as many are ranked anew as for ten.
        again = min(self.parameters["refine"] * max(k, K), effort)
        return searched_anew(self._inner, super()._params(effort, k), max(1.0, again / k))
