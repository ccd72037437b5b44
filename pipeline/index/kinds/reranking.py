"""Reranking: the best answers by coarse codes are compared again with finer vectors.

In FAISS this is an IndexRefine: a base index, and a flat index that reranks its answers.

Legend: N items, E coordinates after padding.
"""

from __future__ import annotations

from typing import Any

import faiss
import numpy as np
from faiss.class_wrappers import add_to_referenced_objects

from embedmill.pipeline.index.searchable import Floats

__all__ = [
    "keep_alive",
    "reranking_bytes",
    "reranking_params",
    "tiled",
    "with_empty_reranking",
    "with_reranking",
]

_SCALAR_TYPES = {8: faiss.ScalarQuantizer.QT_8bit, 16: faiss.ScalarQuantizer.QT_fp16}


def with_reranking(base: Any, item_NE: Floats, bits: int) -> Any:
    """The filled FAISS index `base` with reranking by `bits` a coordinate; 0: `base` itself."""
    if not bits:
        return base
    reranker = _empty_reranker(item_NE.shape[1], bits)
    reranker.train(item_NE)
    reranker.add(item_NE)
    return _refine(base, reranker)


def with_empty_reranking(base: Any, dim: int, bits: int) -> Any:
    """An empty FAISS index with empty reranking by `bits` a coordinate; 0: `base` itself."""
    return _refine(base, _empty_reranker(dim, bits)) if bits else base


def _empty_reranker(dim: int, bits: int) -> Any:
    if bits == 32:
        return faiss.IndexFlatIP(dim)
    return faiss.IndexScalarQuantizer(dim, _SCALAR_TYPES[bits], faiss.METRIC_INNER_PRODUCT)


def _refine(base: Any, reranker: Any) -> Any:
    refine = faiss.IndexRefine(base, reranker)
    keep_alive(refine, base, reranker)
    return refine


def reranking_params(faiss_index: Any, base_params: Any, times: float) -> Any:
    """Search parameters that rerank `times` as many candidates as answers are wanted.

    The parameters of the base index alone, where `faiss_index` does not rerank.
    """
    if not isinstance(faiss_index, faiss.IndexRefine):
        return base_params
    return faiss.IndexRefineSearchParameters(  # type: ignore[call-arg]
        k_factor=times, base_index_params=base_params
    )


def reranking_bytes(items: int, dim: int, bits: int) -> int:
    """Bytes that reranking adds to an index."""
    return items * dim * bits // 8 + (dim * 8 if bits == 8 else 0)


def keep_alive(owner: Any, *parts: Any) -> None:
    """Let parts live as long as their owner: FAISS holds bare pointers to them."""
    for part in parts:
        add_to_referenced_objects(owner, part)  # type: ignore[no-untyped-call]


def tiled(vector_ND: Floats, least: int) -> Floats:
    """Vectors repeated until there are at least so many.

    A codebook needs as many training vectors as centroids; with repetitions, each vector becomes
    a centroid of its own.
    """
    times = -(-least // max(1, len(vector_ND)))
    return np.tile(vector_ND, (times, 1)) if times > 1 else vector_ND
