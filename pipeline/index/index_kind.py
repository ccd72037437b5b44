"""What a kind of index does: plan, build and load.

Legend: N items, D coordinates.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import faiss
import numpy as np

from embedmill.pipeline.config import IndexConfig
from embedmill.pipeline.index.searchable import FaissIndex, Floats

__all__ = ["IndexKind"]


class IndexKind(ABC):
    """A kind of index: how it is planned, built and loaded. Instances have no state.

    Parameters are whole numbers by name: those of the build, and those that a search uses.
    `plan` decides them from the config; `candidates` are worth comparing where the config
    names a target instead.
    """

    # The class of what `build` and `load` give.
    index_class: type[FaissIndex]
    # How many of the `candidates` are tried even when the first reaches the target recall.
    min_trials: ClassVar[int] = 1
    # Tried only where no other kind reaches the target recall.
    last_resort: ClassVar[bool] = False

    @property
    def exact(self) -> bool:
        """Whether a search finds all of the k best."""
        return self.index_class.exact

    @abstractmethod
    def plan(self, items: int, dim: int, config: IndexConfig) -> dict[str, int]:
        """Parameters for N items of D coordinates; zeros of the config are replaced. Pure."""

    def candidates(self, items: int, dim: int, config: IndexConfig) -> list[dict[str, int]]:
        """Parameters worth building to reach a target, best guess first. Pure."""
        return [self.plan(items, dim, config)]

    @abstractmethod
    def build_seconds(self, items: int, dim: int, parameters: Mapping[str, int]) -> float:
        """Estimated seconds of `build` on one core of the machine that `cost` describes."""

    @abstractmethod
    def estimate_bytes(self, items: int, dim: int, parameters: Mapping[str, int]) -> int:
        """Bytes of the serialized index, to within a tenth and a few KiB."""

    def build(self, item_ND: Floats, parameters: Mapping[str, int], seed: int) -> FaissIndex:
        """The index over all items; equal inputs give equal bytes on any number of threads.

        Args:
            item_ND: float32 [N, D], compared by inner product.
            parameters: of `plan` or `candidates`.
            seed: of k-means and of samples.
        """
        return self.open(self.build_faiss(item_ND, parameters, seed), parameters)

    @abstractmethod
    def build_faiss(self, item_ND: Floats, parameters: Mapping[str, int], seed: int) -> Any:
        """As `build`, the FAISS index alone."""

    def open(self, faiss_index: Any, parameters: Mapping[str, int]) -> FaissIndex:
        """A FAISS index of this kind as a searchable."""
        return self.index_class(faiss_index, parameters)

    def load(self, data: bytes, parameters: Mapping[str, int]) -> FaissIndex:
        """The index from bytes whose sha256 was checked.

        FAISS trusts the lengths that it reads from a file. A limit keeps it from allocating more
        for one vector than the file holds and its tables need.
        """
        before = faiss.get_deserialization_vector_byte_limit()
        limit = len(data) + self.unstored_bytes(parameters) + 1
        faiss.set_deserialization_vector_byte_limit(limit)
        try:
            faiss_index = faiss.deserialize_index(np.frombuffer(data, np.uint8))
        finally:
            faiss.set_deserialization_vector_byte_limit(before)
        return self.open(faiss_index, parameters)

    def unstored_bytes(self, parameters: Mapping[str, int]) -> int:
        """Bytes of the largest table that is not stored, but computed while loading."""
        return 0
