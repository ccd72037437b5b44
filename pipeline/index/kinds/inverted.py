"""What kinds with inverted lists share: lists learned by distance, probed by inner product.

Legend: B queries, k answers each, N items, M of them, D coordinates, E padded ones, L lists,
P probed ones.
"""

from __future__ import annotations

import functools
import math
from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, Self

import faiss
import numpy as np

from embedmill.pipeline.config import IndexConfig
from embedmill.pipeline.errors import ConfigError
from embedmill.pipeline.index import cost
from embedmill.pipeline.index.contract import Floats, Index, K, Rows, threads
from embedmill.pipeline.index.kinds.padding import padded
from embedmill.pipeline.index.kinds.reranking import keep, searched_anew

__all__ = [
    "PER_LIST",
    "SMALL",
    "Inverted",
    "centroids",
    "check_segments",
    "filled",
    "lists_of",
    "sample",
]

# Items per list below which FAISS calls k-means unreliable.
PER_LIST = 39
# Coordinates in all below which k-means takes one thread: its threads spin while they wait
# for each other, and on a busy machine two took six times as long as one.
SMALL = 1 << 20
# Of k-means: items looked at per list, and rounds.
_LOOKED_AT = 64
_ROUNDS = 10
# To be asked for a quarter of the catalogue is to be asked for a look at all of it.
_LARGE = 4


class Inverted(Index):
    """Items in lists around centroids; a search compares those of the nearest few lists.

    Lists are learned and filled by Euclidean distance, which keeps items together that are
    alike in length too, and probed by the inner product of query and centroid: where lengths
    vary, lists of long items come first, as they should. (FAISS assigns by inner product, and
    then the longest centroid draws items from everywhere.)
    """

    knob = "probes"

    @staticmethod
    def plan(items: int, dim: int, config: IndexConfig) -> dict[str, int]:
        """Settle lists and probes."""
        return lists_of(items, config, 4)

    @classmethod
    def build(cls, item_ND: Floats, parameters: Mapping[str, int], seed: int) -> Self:
        """Learn the lists, then fill them."""
        item_NE = padded(item_ND, parameters.get("segments", 1))
        with threads(1 if item_NE.size < SMALL else 0):
            turn = cls.turning(item_NE, parameters, seed)
            turned_NE = item_NE if turn is None else turn.apply(item_NE)
            centroid_LE = centroids(turned_NE, parameters["lists"], seed)
            engine = cls.over(item_NE, turn, centroid_LE, parameters, seed)
        return cls(engine, parameters)

    @classmethod
    def turning(cls, item_NE: Floats, parameters: Mapping[str, int], seed: int) -> Any:
        """What turns vectors before they go to lists, learned from items; None: nothing does."""
        return None

    @classmethod
    def over(
        cls,
        item_NE: Floats,
        turn: Any,
        centroid_LE: Floats,
        parameters: Mapping[str, int],
        seed: int,
    ) -> Any:
        """The engine over all items, given what turns them and the centroids of its lists."""
        return cls._filled(item_NE, centroid_LE, parameters, seed)

    @staticmethod
    @abstractmethod
    def _filled(
        item_NE: Floats, centroid_LE: Floats, parameters: Mapping[str, int], seed: int
    ) -> Any:
        """The engine over all items, given its lists."""

    @staticmethod
    def work(items: int, dim: int, parameters: Mapping[str, int]) -> float:
        """Of k-means and of assigning every item."""
        lists = parameters["lists"]
        seen = min(items, lists * _LOOKED_AT) * _ROUNDS + items
        return seen * lists * dim * cost.MULTIPLY * 2e-9 + items * 2e-6

    def limits(self) -> tuple[int, int]:
        """One list to all."""
        return 1, self.parameters["lists"]

    def microseconds(self, query_BD: Floats, k: int, items: int = 0) -> float:
        """Centroids, lists turned to, and what is compared in them.

        Lists, those that are probed, and items in all of them grow with the root of the items.
        """
        held = self.engine.ntotal
        times, dim = math.sqrt((items or held) / held), query_BD.shape[1]
        return (
            cost.products(times * self.parameters["lists"], dim)
            + cost.lists(times * self.parameters["probes"])
            + self._compared(times * self.scanned(query_BD), dim, k)
        )

    @abstractmethod
    def _compared(self, scanned: float, dim: int, k: int) -> float:
        """Microseconds of comparing so many items of the lists, for k answers."""

    @functools.cached_property
    def _ivf(self) -> Any:
        """The part of the engine that holds the lists."""
        return faiss.extract_index_ivf(self.engine)

    @functools.cached_property
    def _size_L(self) -> Rows:  # noqa: N802 (a shape)
        lists = self._ivf.invlists
        return np.array([lists.list_size(i) for i in range(lists.nlist)], np.int64)

    def scanned(self, query_BD: Floats) -> float:
        """Items that a query compares on average."""
        query_BE = padded(query_BD, self.parameters.get("segments", 1))
        if isinstance(self._outer, faiss.IndexPreTransform):
            turn = faiss.downcast_VectorTransform(self._outer.chain.at(0))  # type: ignore[attr-defined]
            query_BE = turn.apply(query_BE)
        _, list_BP = self._ivf.quantizer.search(query_BE, self.parameters["probes"])
        return float(self._size_L[list_BP].sum(axis=1).mean())

    @functools.cached_property
    def _outer(self) -> Any:
        """The engine without what ranks anew."""
        engine = self.engine
        if isinstance(engine, faiss.IndexRefine):
            return faiss.downcast_index(engine.base_index)
        return engine

    def _search(self, query_BD: Floats, k: int, setting: int) -> tuple[Floats, Rows]:
        score_Bk, row_Bk = self.glance(query_BD, k, setting)
        # Lists near a query may be empty, and codes cannot rank for a query of zeros.
        short = np.flatnonzero((row_Bk < 0).any(axis=1))
        if len(short):
            query_BE = padded(query_BD[short], self.parameters.get("segments", 1))
            score_Bk[short], row_Bk[short] = self._exhaustive(query_BE, k)
        return score_Bk, row_Bk

    def glance(self, query_BD: Floats, k: int, setting: int) -> tuple[Floats, Rows]:
        """What the probed lists have."""
        lists = self.parameters["lists"]
        query_BE = padded(query_BD, self.parameters.get("segments", 1))
        if k * _LARGE >= self.engine.ntotal:
            return self._exhaustive(query_BE, k)
        # Lists are uneven: enough of them that twice the answers are in sight.
        enough = math.ceil(2 * k * lists / self.engine.ntotal)
        wanted = self._for_more(setting or self.parameters["probes"], k)
        probes = min(lists, max(wanted, enough))
        # For fewer than ten answers as many are ranked anew as for ten.
        refine = self.parameters.get("refine", 1) * max(1.0, K / k)
        params = self._params(probes, refine)
        score_Bk, row_Bk = self.engine.search(query_BE, k, params=params)
        return score_Bk, row_Bk

    def _exhaustive(self, query_BE: Floats, k: int) -> tuple[Floats, Rows]:
        """All lists, or all of what answers are ranked anew with."""
        if isinstance(self.engine, faiss.IndexRefine):
            score_Bk, row_Bk = faiss.downcast_index(self.engine.refine_index).search(query_BE, k)
        else:
            params = self._params(self.parameters["lists"], 1)
            score_Bk, row_Bk = self.engine.search(query_BE, k, params=params)
        return score_Bk, row_Bk

    def _params(self, probes: int, refine: float) -> Any:
        found: Any = faiss.SearchParametersIVF(nprobe=probes)  # type: ignore[call-arg]
        if isinstance(self._outer, faiss.IndexPreTransform):
            found = faiss.SearchParametersPreTransform(index_params=found)  # type: ignore[call-arg]
        return searched_anew(self.engine, found, refine)


def lists_of(items: int, config: IndexConfig, times: int) -> dict[str, int]:
    """Lists, so many times the root of the items where not given, and probes.

    At least 39 items come to a list.
    """
    lists = config.ivf.lists or round(times * math.sqrt(items))
    lists = max(1, min(lists, items // PER_LIST))
    return {"lists": lists, "probes": min(config.ivf.probes or -(-lists // 4), lists)}


def centroids(item_NE: Floats, lists: int, seed: int) -> Floats:
    """Centres of so many lists by k-means over a sample, float32 [L, E]."""
    clustering = faiss.Clustering(item_NE.shape[1], lists)
    clustering.seed = seed
    clustering.niter = _ROUNDS
    clustering.max_points_per_centroid = _LOOKED_AT
    clustering.min_points_per_centroid = 1  # decided in `plan`: no warnings
    clustering.train(item_NE, faiss.IndexFlatL2(item_NE.shape[1]))
    return faiss.vector_to_array(clustering.centroids).reshape(lists, -1).copy()


def filled(
    make: Callable[[Any], Any],
    item_NE: Floats,
    centroid_LE: Floats,
    learned_ME: Floats,
    train_threads: int = 0,
) -> Any:
    """An engine that fills its lists by distance and probes them by inner product.

    Args:
        make: gives the empty engine over a quantizer.
        item_NE: float32 [N, E], all items.
        centroid_LE: float32 [L, E], of its lists.
        learned_ME: items that codes are learned from.
        train_threads: to learn codes with, 0 for all.
    """
    by_distance = faiss.IndexFlatL2(item_NE.shape[1])
    by_product = faiss.IndexFlatIP(item_NE.shape[1])
    for quantizer in (by_distance, by_product):
        quantizer.add(centroid_LE)
    engine = make(by_distance)
    with threads(train_threads):
        engine.train(learned_ME)
    engine.add(item_NE)
    engine.quantizer = by_product
    keep(engine, by_distance, by_product)
    return engine


def check_segments(key: str, segments: int, dim: int, default: str) -> None:
    """Raise ConfigError where more segments are asked for than vectors have coordinates."""
    if segments > dim:
        raise ConfigError(
            f"{key}: {segments} segments of {dim} coordinates; "
            f"allowed: 1 to {dim}, or 0 for {default}"
        )


def sample(item_NE: Floats, most: int, seed: int) -> Floats:
    """At most so many items, drawn by the seed, each at most once."""
    if len(item_NE) <= most:
        return item_NE
    drawn = np.random.default_rng(seed).choice(len(item_NE), most, replace=False, shuffle=False)
    return item_NE[np.sort(drawn)]
