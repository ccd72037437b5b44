"""What can be searched: the contract, and its implementation by one FAISS index.

Legend: B queries, K answers each, N items, D coordinates.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Protocol, Self

import faiss
import numpy as np
from numpy.typing import NDArray

__all__ = ["FaissIndex", "Floats", "K", "Rows", "Searchable", "Tunable", "no_answers"]

# Answers for which recall is measured and targeted: recall is recall@10.
K = 10

Floats = NDArray[np.float32]
Rows = NDArray[np.int64]


class Searchable(Protocol):
    """An index that can be searched: one FAISS index, several shards, or base and delta.

    Answers are positions: an item's position is its rank among the indexed items by rising row.

    `search_parameter` names the parameter that trades time for recall ("ef_search", "probes"),
    "" where there is none. `parameters` holds what the index was built with, and the values
    that `search` uses unless told otherwise.
    """

    @property
    def items(self) -> int:
        """N."""
        ...

    @property
    def search_parameter(self) -> str:
        """See the class."""
        ...

    @property
    def parameters(self) -> dict[str, int]:
        """See the class."""
        ...

    def settings(self) -> list[int]:
        """Values of the search parameter worth measuring, rising; empty where there is none."""
        ...

    def search(self, query_BD: Floats, k: int, setting: int = 0) -> tuple[Floats, Rows]:
        """The k items of largest inner product with each query.

        Args:
            query_BD: float32 [B, D].
            k: answers wanted; may exceed the number of items.
            setting: value of the search parameter; 0 for the one in `parameters`.

        Returns:
            scores float32 [B, k] falling (equal ones by lower position) and positions
            int64 [B, k]; -inf and -1 where the index finds no more.
        """
        ...


class Tunable(Searchable, Protocol):
    """A searchable whose search parameter can be tuned to a target recall.

    `exact` ones find all of the k best, whatever the setting.
    """

    @property
    def exact(self) -> bool:
        """See the class."""
        ...

    def limits(self) -> tuple[int, int]:
        """Least and greatest useful value of the search parameter."""
        ...

    def variants(self) -> list[dict[str, int]]:
        """Other parameters of searching to combine with every setting, cheapest first."""
        ...

    def with_parameters(self, parameters: Mapping[str, int]) -> Self:
        """The same index searched with other parameters; nothing is copied."""
        ...

    def cost_us(self, query_BD: Floats, k: int, items: int = 0) -> float:
        """Microseconds of a query on one core, from counted comparisons instead of the clock.

        Counts are the same on every machine and in every run, and so is a selection by them.

        Args:
            query_BD: float32 [B, D]; the mean over these queries is returned.
            k: answers wanted.
            items: extrapolate to so many items at about equal recall; 0 for the present number.
        """
        ...


class FaissIndex(ABC):
    """A `Tunable` over one FAISS index; each kind of index has a subclass."""

    search_parameter: str = ""
    exact: ClassVar[bool] = False

    def __init__(self, faiss_index: Any, parameters: Mapping[str, int]) -> None:
        self.faiss_index = faiss_index
        self.parameters = dict(parameters)
        self.items = int(faiss_index.ntotal)

    def settings(self) -> list[int]:
        """Powers of two from a sixteenth of the current value to eight times it, and itself.

        See `Searchable.settings`.
        """
        if not self.search_parameter:
            return []
        current, (least, most) = self.parameters[self.search_parameter], self.limits()
        powers = {2**i for i in range(most.bit_length()) if least <= 2**i <= most}
        return sorted({p for p in powers if current <= 16 * p <= 128 * current} | {current})

    def limits(self) -> tuple[int, int]:
        """See `Tunable.limits`."""
        return 0, 0

    def variants(self) -> list[dict[str, int]]:
        """See `Tunable.variants`."""
        return [{}]

    def with_parameters(self, parameters: Mapping[str, int]) -> Self:
        """See `Tunable.with_parameters`."""
        return type(self)(self.faiss_index, {**self.parameters, **parameters})

    @abstractmethod
    def cost_us(self, query_BD: Floats, k: int, items: int = 0) -> float:
        """See `Tunable.cost_us`."""

    def search(self, query_BD: Floats, k: int, setting: int = 0) -> tuple[Floats, Rows]:
        """See `Searchable.search`."""
        found_k = min(k, self.items)
        if not found_k or not len(query_BD):
            return no_answers(len(query_BD), k)
        score_BK, position_BK = self._search(np.ascontiguousarray(query_BD), found_k, setting)
        if found_k < k:
            none = no_answers(len(query_BD), k - found_k)
            score_BK = np.hstack([score_BK, none[0]])
            position_BK = np.hstack([position_BK, none[1]])
        if position_BK.min() < 0:
            score_BK[position_BK < 0] = -np.inf
        if (score_BK[:, 1:] < score_BK[:, :-1]).all():
            return score_BK, position_BK  # the common case: FAISS has sorted, no scores are equal
        order = np.lexsort((position_BK, -score_BK), axis=1)
        return np.take_along_axis(score_BK, order, 1), np.take_along_axis(position_BK, order, 1)

    def search_partial(self, query_BD: Floats, k: int, setting: int) -> tuple[Floats, Rows]:
        """As `search` for k <= N, but in any order, and possibly with fewer answers than k."""
        return self._search(query_BD, k, setting)

    def _search(self, query_BD: Floats, k: int, setting: int) -> tuple[Floats, Rows]:
        score_Bk, position_Bk = self.faiss_index.search(query_BD, k)
        return score_Bk, position_Bk

    @staticmethod
    def _scaled_setting(setting: int, k: int) -> int:
        """The setting for k answers, where `setting` was tuned for ten.

        More answers lie further out: the setting for ten finds a smaller share of a hundred. It
        is raised with the square root of k.
        """
        return math.ceil(setting * math.sqrt(max(1.0, k / K)))

    def to_bytes(self) -> bytes:
        """The FAISS index, serialized."""
        return faiss.serialize_index(self.faiss_index).tobytes()


def no_answers(queries: int, k: int) -> tuple[Floats, Rows]:
    """Answers that are not there: scores -inf and positions (or rows) -1, [queries, k]."""
    return np.full((queries, k), -np.inf, np.float32), np.full((queries, k), -1, np.int64)
