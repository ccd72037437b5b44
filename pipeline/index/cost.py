"""What a search costs on one core, from counts: microseconds on a machine with AVX-512.

The weights were fitted once to timings of FAISS 1.15 on one core (AMD EPYC, 3 GHz). They only
have to order kinds and settings of an index; the time of a search on this machine is measured
afterwards.

Functions return microseconds of one query unless they say otherwise.
"""

from __future__ import annotations

__all__ = [
    "CALL_US",
    "MULTIPLY_ADD_NS",
    "batched_products",
    "graph_search",
    "graph_search_sq8",
    "pq4_scan",
    "pq8_scan",
    "probed_lists",
    "reranked",
    "sq8_scan",
    "vector_scan",
]

# Microseconds of a call to FAISS, whatever it searches.
CALL_US = 25.0
# Nanoseconds of a multiply and an add in a product of large matrices.
MULTIPLY_ADD_NS = 0.02
# With more bytes of vectors than this, each vector that a graph visits comes from main memory.
_CACHE = 32 << 20


def batched_products(vectors: float, dim: int) -> float:
    """Inner products with contiguous vectors, many queries at once (a matrix product)."""
    return vectors * (dim * 0.08 + 2) * 1e-3


def vector_scan(vectors: float, dim: int) -> float:
    """Inner products of a single query with contiguous vectors."""
    return vectors * (dim * 0.1 + 4) * 1e-3


def sq8_scan(vectors: float, dim: int) -> float:
    """Inner products with contiguous scalar codes of a byte per coordinate."""
    return vectors * (dim * 0.08 + 5) * 1e-3


def pq4_scan(vectors: float, size: float) -> float:
    """The lookup table of a query, and four-bit codes of `size` bytes compared 32 at a time."""
    return 8 + size * 0.02 + vectors * (size * 0.045 + 0.1) * 1e-3


def pq8_scan(vectors: float, segments: int) -> float:
    """Eight-bit product codes, one table lookup per segment."""
    return vectors * (segments * 0.5 + 3) * 1e-3


def probed_lists(probes: float) -> float:
    """Starting on so many inverted lists."""
    return probes * 0.25


def reranked(vectors: float, dim: int, bits: int) -> float:
    """Inner products with scattered vectors of `bits` per coordinate; 0 bits: no reranking."""
    if not bits:
        return 0.0
    return vectors * (dim * 0.1 + 120 if bits == 32 else dim * 0.15 + 180) * 1e-3


def graph_search(vectors: float, dim: int, size: int) -> float:
    """Inner products with vectors along links, of `size` bytes of vectors in all."""
    return vectors * (dim * 0.15 + _fetch_ns(size)) * 1e-3


def graph_search_sq8(vectors: float, dim: int, size: int) -> float:
    """As `graph_search`, over scalar codes of a byte per coordinate."""
    return vectors * (dim * 0.05 + 5 + _fetch_ns(size)) * 1e-3


def _fetch_ns(size: int) -> int:
    """Nanoseconds to fetch one vector out of `size` bytes of them."""
    return 35 if size <= _CACHE else 110
