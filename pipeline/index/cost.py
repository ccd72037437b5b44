"""What a search costs on one core, from counts: microseconds of a machine with AVX-512.

The figures were fitted once to times of FAISS 1.15 on one core (AMD EPYC, 3 GHz). They order
kinds and settings of an index; what a search takes here is measured after, by the clock.
"""

from __future__ import annotations

__all__ = [
    "CALL",
    "MULTIPLY",
    "codes",
    "decoded",
    "lists",
    "looked_up",
    "looked_up_codes",
    "products",
    "streamed",
    "walked",
    "walked_codes",
]

# Microseconds of a call, whatever it searches.
CALL = 25.0
# Nanoseconds of a multiply and an add in a product of large matrices.
MULTIPLY = 0.02
# Bytes of vectors beyond which each one is fetched from memory.
_CACHE = 32 << 20


def products(vectors: float, dim: int) -> float:
    """Inner products of many queries with vectors that lie one after another."""
    return vectors * (dim * 0.08 + 2) * 1e-3


def streamed(vectors: float, dim: int) -> float:
    """Inner products of one query with vectors that lie one after another."""
    return vectors * (dim * 0.1 + 4) * 1e-3


def decoded(vectors: float, dim: int) -> float:
    """Inner products with codes of a byte a coordinate."""
    return vectors * (dim * 0.08 + 5) * 1e-3


def codes(vectors: float, size: float) -> float:
    """A table for the query, and codes of four bits, compared 32 at a time, `size` bytes each."""
    return 8 + size * 0.02 + vectors * (size * 0.045 + 0.1) * 1e-3


def looked_up_codes(vectors: float, segments: int) -> float:
    """Codes of eight bits, each a look into a table."""
    return vectors * (segments * 0.5 + 3) * 1e-3


def lists(probes: float) -> float:
    """Turning to so many lists."""
    return probes * 0.25


def looked_up(vectors: float, dim: int, bits: int) -> float:
    """Inner products with vectors here and there in memory: faster as they are than coded."""
    if not bits:
        return 0.0
    return vectors * (dim * 0.1 + 120 if bits == 32 else dim * 0.15 + 180) * 1e-3


def walked(vectors: float, dim: int, size: int) -> float:
    """Inner products along links, with `size` bytes of vectors in all."""
    return vectors * (dim * 0.15 + _far(size)) * 1e-3


def walked_codes(vectors: float, dim: int, size: int) -> float:
    """As `walked`, with codes of a byte a coordinate."""
    return vectors * (dim * 0.05 + 5 + _far(size)) * 1e-3


def _far(size: int) -> int:
    """Nanoseconds until one of the vectors is there, with so many bytes of them."""
    return 35 if size <= _CACHE else 110
