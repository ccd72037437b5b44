"""An index file as a memory map: pages come from the disk when a search looks at them."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import faiss

from embedmill.pipeline.errors import CorruptArtifactError
from embedmill.pipeline.index.contract import Index

__all__ = ["map_index"]

_limit_lock = threading.Lock()


def map_index(path: Path, kind: type[Index], parameters: Mapping[str, int]) -> Index:
    """The index of a local file that was checked against its sha256.

    FAISS believes lengths that it reads: as in `Index.load`, none may exceed the file and what
    the parameters make of it. With IO_FLAG_MMAP_IFC it takes large arrays from the map and
    checks them against its end; the older IO_FLAG_MMAP maps inverted lists alone.

    Raises:
        CorruptArtifactError: FAISS cannot read it.
    """
    bound = path.stat().st_size + kind._unstored(parameters) + 1
    try:
        return kind(_read(path, bound), parameters)
    except RuntimeError as error:
        raise CorruptArtifactError(
            f"is no index that FAISS {faiss.__version__} can read",
            where=str(path),
            todo="Run again with --rebuild from stage 'index', or use the release that wrote it",
        ) from error


def _read(path: Path, bound: int) -> Any:
    """The engine; the limit is the process's, so one file is read at a time."""
    with _limit_lock:
        before = faiss.get_deserialization_vector_byte_limit()
        faiss.set_deserialization_vector_byte_limit(bound)
        try:
            return faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
        finally:
            faiss.set_deserialization_vector_byte_limit(before)
