"""Answers of coarse codes, ranked anew by finer ones."""

from __future__ import annotations

from typing import Any

import faiss
import numpy as np
from faiss.class_wrappers import add_to_referenced_objects

from embedmill.pipeline.index.contract import Floats

__all__ = [
    "enough",
    "finer_behind",
    "keep",
    "refine_bytes",
    "refined",
    "scalar",
    "searched_anew",
]

_TYPES = {8: faiss.ScalarQuantizer.QT_8bit, 16: faiss.ScalarQuantizer.QT_fp16}


def refined(engine: Any, item_NE: Floats, bits: int) -> Any:
    """The engine with its answers ranked anew by so many bits a coordinate; 0: as it is."""
    if not bits:
        return engine
    finer = _finer(item_NE.shape[1], bits)
    finer.train(item_NE)
    finer.add(item_NE)
    return _before(engine, finer)


def finer_behind(engine: Any, wide: int, bits: int) -> Any:
    """An empty engine whose answers will be ranked anew; 0 bits: as it is."""
    return _before(engine, _finer(wide, bits)) if bits else engine


def _finer(wide: int, bits: int) -> Any:
    return faiss.IndexFlatIP(wide) if bits == 32 else scalar(wide, bits)


def _before(engine: Any, finer: Any) -> Any:
    outer = faiss.IndexRefine(engine, finer)
    keep(outer, engine, finer)
    return outer


def searched_anew(engine: Any, found: Any, times: float) -> Any:
    """Parameters of a search, where the engine ranks anew that of so many times the answers."""
    if not isinstance(engine, faiss.IndexRefine):
        return found
    return faiss.IndexRefineSearchParameters(  # type: ignore[call-arg]
        k_factor=times, base_index_params=found
    )


def scalar(dim: int, bits: int) -> Any:
    """Empty storage of 8 or 16 bits a coordinate, compared by inner product."""
    return faiss.IndexScalarQuantizer(dim, _TYPES[bits], faiss.METRIC_INNER_PRODUCT)


def refine_bytes(items: int, wide: int, bits: int) -> int:
    """Bytes of what `refined` adds."""
    return items * wide * bits // 8 + (wide * 8 if bits == 8 else 0)


def keep(owner: Any, *parts: Any) -> None:
    """Let parts live as long as their owner: FAISS holds bare pointers to them."""
    for part in parts:
        add_to_referenced_objects(owner, part)  # type: ignore[no-untyped-call]


def enough(vector_ND: Floats, least: int) -> Floats:
    """The vectors repeated until there are so many: each is then its own centroid."""
    times = -(-least // max(1, len(vector_ND)))
    return np.tile(vector_ND, (times, 1)) if times > 1 else vector_ND
