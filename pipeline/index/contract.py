"""What every index answers to.

Legend: B queries, K answers each, N items, D coordinates.
"""

from __future__ import annotations

import contextlib
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Protocol, Self

import faiss
import numpy as np
from numpy.typing import NDArray

from embedmill.pipeline.config import IndexConfig

__all__ = ["Floats", "Index", "K", "Rows", "Searchable", "threads"]

# Neighbours asked for where recall is measured and promised: recall is recall@10.
K = 10

Floats = NDArray[np.float32]
Rows = NDArray[np.int64]


class Searchable(Protocol):
    """What can be asked and measured: an index, or several behind one search."""

    @property
    def knob(self) -> str:
        """See `Index`."""
        ...

    @property
    def parameters(self) -> dict[str, int]:
        """See `Index`."""
        ...

    def settings(self) -> list[int]:
        """See `Index.settings`."""
        ...

    def search(self, query_BD: Floats, k: int, setting: int = 0) -> tuple[Floats, Rows]:
        """See `Index.search`."""
        ...


class Index(ABC):
    """Items by inner product: build, search, save, load, and an estimate of the size.

    `parameters` are whole numbers, decided by `plan` or searched for among `candidates`, and
    stored beside the index: those of the build, and the operating point that `search` uses.
    `knob` names the one of these that trades time for recall, "" where none does. `exact`
    kinds find all there is. `tries` is how many of the `candidates` are worth a trial even when
    the first will do; a `spare` kind is tried where no other will.
    """

    knob: str = ""
    exact: bool = False
    tries: ClassVar[int] = 1
    spare: ClassVar[bool] = False

    def __init__(self, engine: Any, parameters: Mapping[str, int]) -> None:
        self.engine = engine
        self.parameters = dict(parameters)

    @staticmethod
    @abstractmethod
    def plan(items: int, dim: int, config: IndexConfig) -> dict[str, int]:
        """Parameters for a catalogue of this size; pure. Zeros of the config are settled."""

    @classmethod
    def candidates(cls, items: int, dim: int, config: IndexConfig) -> list[dict[str, int]]:
        """Parameters worth building where a promise decides, best guess first; pure."""
        return [cls.plan(items, dim, config)]

    @staticmethod
    @abstractmethod
    def work(items: int, dim: int, parameters: Mapping[str, int]) -> float:
        """Seconds that `build` takes on one core of the machine that `cost` describes."""

    @classmethod
    @abstractmethod
    def build(cls, item_ND: Floats, parameters: Mapping[str, int], seed: int) -> Self:
        """The index over all items; the same bytes for the same input on any machine's threads."""

    @staticmethod
    @abstractmethod
    def estimate(items: int, dim: int, parameters: Mapping[str, int]) -> int:
        """Bytes that `save` will give, to within a tenth and a few KiB."""

    def settings(self) -> list[int]:
        """Values of the knob worth showing, rising; empty without a knob.

        Powers of two, from a sixteenth of the one in use to eight times it.
        """
        if not self.knob:
            return []
        chosen, (least, most) = self.parameters[self.knob], self.limits()
        powers = {2**i for i in range(most.bit_length()) if least <= 2**i <= most}
        return sorted({p for p in powers if chosen <= 16 * p <= 128 * chosen} | {chosen})

    def limits(self) -> tuple[int, int]:
        """Least and greatest useful value of the knob."""
        return 0, 0

    def variants(self) -> list[dict[str, int]]:
        """Other parameters of searching to try with every value of the knob, cheapest first."""
        return [{}]

    def at(self, parameters: Mapping[str, int]) -> Self:
        """The same index at another operating point; nothing is copied."""
        return type(self)(self.engine, {**self.parameters, **parameters})

    @abstractmethod
    def microseconds(self, query_BD: Floats, k: int, items: int = 0) -> float:
        """Of a query on one core, by counting what a search compares, not by the clock.

        Counts are the same on every machine and each time, so that a choice by them is too.

        Args:
            query_BD: float32 [B, D], whose mean is told.
            k: answers wanted.
            items: as it would be over so many, at about equal recall; 0 for those it has.
        """

    def search(self, query_BD: Floats, k: int, setting: int = 0) -> tuple[Floats, Rows]:
        """The k best items of each query.

        Args:
            query_BD: float32 [B, D].
            k: answers wanted; may exceed the catalogue.
            setting: of the knob, 0 for what the index was planned with.

        Returns:
            scores float32 [B, k] falling (equal ones by lower row), rows int64 [B, k]; -inf
            and -1 where the index finds no more.
        """
        held = min(k, self.engine.ntotal)
        if not held or not len(query_BD):
            return _none(len(query_BD), k)
        score_BK, row_BK = self._search(np.ascontiguousarray(query_BD), held, setting)
        if held < k:
            none = _none(len(query_BD), k - held)
            score_BK, row_BK = np.hstack([score_BK, none[0]]), np.hstack([row_BK, none[1]])
        if row_BK.min() < 0:
            score_BK[row_BK < 0] = -np.inf
        if (score_BK[:, 1:] < score_BK[:, :-1]).all():
            return score_BK, row_BK  # as FAISS mostly gives them: no sorting
        order = np.lexsort((row_BK, -score_BK), axis=1)
        return np.take_along_axis(score_BK, order, 1), np.take_along_axis(row_BK, order, 1)

    @staticmethod
    def _for_more(setting: int, k: int) -> int:
        """The knob for k answers, where the setting was tuned for ten.

        More answers lie further around: at the setting for ten a search for many finds fewer of
        them. It grows with the root of k.
        """
        return math.ceil(setting * math.sqrt(max(1.0, k / K)))

    def glance(self, query_BD: Floats, k: int, setting: int) -> tuple[Floats, Rows]:
        """As `search` for at most as many as it holds, but in any order, and it may find fewer."""
        return self._search(query_BD, k, setting)

    def _search(self, query_BD: Floats, k: int, setting: int) -> tuple[Floats, Rows]:
        score_Bk, row_Bk = self.engine.search(query_BD, k)
        return score_Bk, row_Bk

    def save(self) -> bytes:
        """The index as bytes."""
        return faiss.serialize_index(self.engine).tobytes()

    @classmethod
    def load(cls, data: bytes, parameters: Mapping[str, int]) -> Self:
        """The index of bytes that were checked against their sha256.

        FAISS believes lengths that it reads: no vector may exceed the file and what the
        parameters make of it.
        """
        before = faiss.get_deserialization_vector_byte_limit()
        faiss.set_deserialization_vector_byte_limit(len(data) + cls._unstored(parameters) + 1)
        try:
            engine = faiss.deserialize_index(np.frombuffer(data, np.uint8))
        finally:
            faiss.set_deserialization_vector_byte_limit(before)
        return cls(engine, parameters)

    @staticmethod
    def _unstored(parameters: Mapping[str, int]) -> int:
        """Bytes of the largest table that is made anew on loading."""
        return 0


def _none(queries: int, k: int) -> tuple[Floats, Rows]:
    """Answers that there are not."""
    return np.full((queries, k), -np.inf, np.float32), np.full((queries, k), -1, np.int64)


@contextlib.contextmanager
def threads(count: int) -> Iterator[None]:
    """FAISS on so many threads inside the block; 0 for all cores."""
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(count or before)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)
