"""How many threads FAISS uses inside a block."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import faiss

__all__ = ["faiss_threads"]


@contextlib.contextmanager
def faiss_threads(count: int) -> Iterator[None]:
    """Let FAISS use `count` threads inside the block; 0 leaves the number as it is.

    The number is one of the whole process; it is restored on leaving the block.
    """
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(count or before)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)
