"""What kinds with inverted lists share: lists trained by distance, probed by inner product.

Legend: B queries, k answers each, N items, M training items, D coordinates, E coordinates after
padding, L lists, P probed lists.
"""

from __future__ import annotations

import functools
import math
from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

import faiss
import numpy as np

from embedmill.pipeline.config import IndexConfig
from embedmill.pipeline.errors import ConfigError
from embedmill.pipeline.index import cost
from embedmill.pipeline.index.faiss_threads import faiss_threads
from embedmill.pipeline.index.index_kind import IndexKind
from embedmill.pipeline.index.kinds.padding import padded
from embedmill.pipeline.index.kinds.reranking import keep_alive, reranking_params
from embedmill.pipeline.index.searchable import FaissIndex, Floats, K, Rows

__all__ = [
    "MIN_ITEMS_PER_LIST",
    "SINGLE_THREADED",
    "Inverted",
    "InvertedIndex",
    "build_inverted",
    "check_segments",
    "plan_lists",
    "sample_rows",
    "train_centroids",
]

# Items per list below which FAISS calls k-means unreliable.
MIN_ITEMS_PER_LIST = 39
# k-means over fewer coordinates than this runs on one thread: FAISS's threads spin while they
# wait for each other, and on a busy machine two took six times as long as one.
SINGLE_THREADED = 1 << 20
# k-means: training items per list, and rounds.
_TRAINING_ITEMS_PER_LIST = 64
_ROUNDS = 10
# If k >= n / 4, search exhaustively.
_EXHAUSTIVE = 4
_MORE = 4  # times as many lists are probed for a query whose lists had too few items


class InvertedIndex(FaissIndex):
    """Items in lists around centroids; a search compares those of the nearest lists.

    Lists are trained and filled by Euclidean distance, which groups items of similar direction
    and length, and probed by the inner product of query and centroid: where lengths vary, lists
    of long items come first, as they should. (FAISS would assign items by inner product too, and
    the longest centroid would then collect items from everywhere.)
    """

    search_parameter = "probes"

    def limits(self) -> tuple[int, int]:
        """One list to all lists."""
        return 1, self.parameters["lists"]

    def cost_us(self, query_BD: Floats, k: int, items: int = 0) -> float:
        """Ranking the centroids, starting on lists, and comparing the items in them.

        The number of lists, of probes, and of items in the probed lists grow with the square root
        of the number of items. See `Tunable.cost_us`.
        """
        times, dim = math.sqrt((items or self.items) / self.items), query_BD.shape[1]
        return (
            cost.batched_products(times * self.parameters["lists"], dim)
            + cost.probed_lists(times * self.parameters["probes"])
            + self._scan_us(times * self._scanned(query_BD), dim, k)
        )

    @abstractmethod
    def _scan_us(self, scanned: float, dim: int, k: int) -> float:
        """Microseconds of comparing `scanned` items in lists, and of reranking for k answers."""

    @functools.cached_property
    def _ivf(self) -> Any:
        """The FAISS index that holds the lists."""
        return faiss.extract_index_ivf(self.faiss_index)

    @functools.cached_property
    def _size_L(self) -> Rows:  # noqa: N802 (a shape)
        lists = self._ivf.invlists
        return np.array([lists.list_size(i) for i in range(lists.nlist)], np.int64)

    def _scanned(self, query_BD: Floats) -> float:
        """Items in the probed lists, mean over the queries."""
        query_BE = padded(query_BD, self.parameters.get("segments", 1))
        if isinstance(self._base, faiss.IndexPreTransform):
            rotation = faiss.downcast_VectorTransform(self._base.chain.at(0))  # type: ignore[attr-defined]
            query_BE = rotation.apply(query_BE)
        _, list_BP = self._ivf.quantizer.search(query_BE, self.parameters["probes"])
        return float(self._size_L[list_BP].sum(axis=1).mean())

    @functools.cached_property
    def _base(self) -> Any:
        """The FAISS index without its reranking."""
        if isinstance(self.faiss_index, faiss.IndexRefine):
            return faiss.downcast_index(self.faiss_index.base_index)
        return self.faiss_index

    def _search(self, query_BD: Floats, k: int, setting: int) -> tuple[Floats, Rows]:
        score_Bk, position_Bk = self.search_partial(query_BD, k, setting)
        incomplete = np.flatnonzero((position_Bk < 0).any(axis=1))
        if len(incomplete):
            query_BE = padded(query_BD[incomplete], self.parameters.get("segments", 1))
            found = self._from_more_lists(query_BE, k, self._probes(k, setting))
            score_Bk[incomplete], position_Bk[incomplete] = found
        return score_Bk, position_Bk

    def _from_more_lists(self, query_BE: Floats, k: int, probes: int) -> tuple[Floats, Rows]:
        """The best items for queries to which so many lists did not give k: of ever more lists.

        All vectors take as long as many lists, so they come last. Codes cannot rank for a query of
        zeros, whatever the lists.
        """
        lists = self.parameters["lists"]
        if probes >= lists:
            return self._exhaustive(query_BE, k)
        probes = min(lists, _MORE * probes)
        score_Bk, position_Bk = self._probed(query_BE, k, probes)
        incomplete = np.flatnonzero((position_Bk < 0).any(axis=1))
        if len(incomplete):
            found = self._from_more_lists(query_BE[incomplete], k, probes)
            score_Bk[incomplete], position_Bk[incomplete] = found
        return score_Bk, position_Bk

    def search_partial(self, query_BD: Floats, k: int, setting: int) -> tuple[Floats, Rows]:
        """The best items of the probed lists; see `FaissIndex.search_partial`."""
        query_BE = padded(query_BD, self.parameters.get("segments", 1))
        if k * _EXHAUSTIVE >= self.items:
            return self._exhaustive(query_BE, k)
        return self._probed(query_BE, k, self._probes(k, setting))

    def _probes(self, k: int, setting: int) -> int:
        """Lists that are probed first."""
        lists = self.parameters["lists"]
        # Lists differ in size: probe as many as hold 2 k items on average.
        enough = math.ceil(2 * k * lists / self.items)
        wanted = self._scaled_setting(setting or self.parameters["probes"], k)
        return min(lists, max(wanted, enough))

    def _probed(self, query_BE: Floats, k: int, probes: int) -> tuple[Floats, Rows]:
        """The best items of so many lists."""
        # For fewer than ten answers, rerank as many candidates as for ten.
        refine = self.parameters.get("refine", 1) * max(1.0, K / k)
        params = self._params(probes, refine)
        score_Bk, position_Bk = self.faiss_index.search(query_BE, k, params=params)
        return score_Bk, position_Bk

    def _exhaustive(self, query_BE: Floats, k: int) -> tuple[Floats, Rows]:
        """Search all lists, or all vectors of the reranking where there is one."""
        index = self.faiss_index
        if isinstance(index, faiss.IndexRefine):
            score_Bk, position_Bk = faiss.downcast_index(index.refine_index).search(query_BE, k)
        else:
            params = self._params(self.parameters["lists"], 1)
            score_Bk, position_Bk = index.search(query_BE, k, params=params)
        return score_Bk, position_Bk

    def _params(self, probes: int, refine: float) -> Any:
        params: Any = faiss.SearchParametersIVF(nprobe=probes)  # type: ignore[call-arg]
        if isinstance(self._base, faiss.IndexPreTransform):
            params = faiss.SearchParametersPreTransform(index_params=params)  # type: ignore[call-arg]
        return reranking_params(self.faiss_index, params, refine)


class Inverted(IndexKind):
    """A kind with inverted lists; see `InvertedIndex`."""

    index_class: type[InvertedIndex]

    def plan(self, items: int, dim: int, config: IndexConfig) -> dict[str, int]:
        """Lists and probes."""
        return plan_lists(items, config, 4)

    def build_faiss(self, item_ND: Floats, parameters: Mapping[str, int], seed: int) -> Any:
        """Train the lists, then fill them; see `IndexKind.build`."""
        item_NE = padded(item_ND, parameters.get("segments", 1))
        with faiss_threads(1 if item_NE.size < SINGLE_THREADED else 0):
            rotation = self.train_rotation(item_NE, parameters, seed)
            rotated_NE = item_NE if rotation is None else rotation.apply(item_NE)
            centroid_LE = train_centroids(rotated_NE, parameters["lists"], seed)
            return self.fill(item_NE, rotation, centroid_LE, parameters, seed)

    def train_rotation(self, item_NE: Floats, parameters: Mapping[str, int], seed: int) -> Any:
        """The rotation applied to vectors before they go to lists, or None for kinds without."""
        return None

    def fill(
        self,
        item_NE: Floats,
        rotation: Any,
        centroid_LE: Floats,
        parameters: Mapping[str, int],
        seed: int,
    ) -> Any:
        """The FAISS index over all items, given its trained parts.

        Args:
            item_NE: float32 [N, E], padded items, not rotated.
            rotation: of `train_rotation`.
            centroid_LE: float32 [L, E], centroids of the lists, rotated.
            parameters: of `plan` or `candidates`.
            seed: of codebooks and samples.
        """
        return self._fill_lists(item_NE, centroid_LE, parameters, seed)

    @abstractmethod
    def _fill_lists(
        self, item_NE: Floats, centroid_LE: Floats, parameters: Mapping[str, int], seed: int
    ) -> Any:
        """The FAISS index over items that are rotated already."""

    def build_seconds(self, items: int, dim: int, parameters: Mapping[str, int]) -> float:
        """k-means, and assigning every item."""
        lists = parameters["lists"]
        compared = min(items, lists * _TRAINING_ITEMS_PER_LIST) * _ROUNDS + items
        return compared * lists * dim * cost.MULTIPLY_ADD_NS * 2e-9 + items * 2e-6


def plan_lists(items: int, config: IndexConfig, times: int) -> dict[str, int]:
    """Lists and probes where the config leaves them open.

    `times` the square root of the number of items as lists, each of at least 39 items, a quarter
    of which are probed.
    """
    lists = config.ivf.lists or round(times * math.sqrt(items))
    lists = max(1, min(lists, items // MIN_ITEMS_PER_LIST))
    return {"lists": lists, "probes": min(config.ivf.probes or -(-lists // 4), lists)}


def train_centroids(item_NE: Floats, lists: int, seed: int) -> Floats:
    """Centroids of so many lists by k-means over a sample, float32 [L, E]."""
    clustering = faiss.Clustering(item_NE.shape[1], lists)
    clustering.seed = seed
    clustering.niter = _ROUNDS
    clustering.max_points_per_centroid = _TRAINING_ITEMS_PER_LIST
    clustering.min_points_per_centroid = 1  # `plan` sees to it: no warnings
    clustering.train(item_NE, faiss.IndexFlatL2(item_NE.shape[1]))
    return faiss.vector_to_array(clustering.centroids).reshape(lists, -1).copy()


def build_inverted(
    make: Callable[[Any], Any],
    item_NE: Floats,
    centroid_LE: Floats,
    training_ME: Floats,
    train_threads: int = 0,
) -> Any:
    """A FAISS index whose lists are filled by distance and probed by inner product.

    Args:
        make: gives the empty index, for a quantizer that assigns items to lists.
        item_NE: float32 [N, E], all items.
        centroid_LE: float32 [L, E], centroids of the lists.
        training_ME: float32 [M, E], items to train codes with.
        train_threads: threads of that training; 0 leaves the number as it is.
    """
    by_distance = faiss.IndexFlatL2(item_NE.shape[1])
    by_product = faiss.IndexFlatIP(item_NE.shape[1])
    for quantizer in (by_distance, by_product):
        quantizer.add(centroid_LE)
    ivf = make(by_distance)
    with faiss_threads(train_threads):
        ivf.train(training_ME)
    ivf.add(item_NE)
    ivf.quantizer = by_product
    keep_alive(ivf, by_distance, by_product)
    return ivf


def check_segments(key: str, segments: int, dim: int, default: str) -> None:
    """Raise ConfigError where there are more segments than coordinates.

    Args:
        key: config key of the segments.
        segments: its value.
        dim: coordinates of the vectors.
        default: what 0 stands for, in words.
    """
    if segments > dim:
        raise ConfigError(
            f"{key}: {segments} segments of {dim} coordinates; "
            f"allowed: 1 to {dim}, or 0 for {default}"
        )


def sample_rows(item_NE: Floats, most: int, seed: int) -> Floats:
    """At most so many of the items, sampled without replacement, in their order."""
    if len(item_NE) <= most:
        return item_NE
    rows = np.random.default_rng(seed).choice(len(item_NE), most, replace=False, shuffle=False)
    return item_NE[np.sort(rows)]
