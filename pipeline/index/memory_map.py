"""An index file as a memory map: a search reads from disk only the pages that it touches."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import faiss

from embedmill.pipeline.errors import CorruptArtifactError
from embedmill.pipeline.index.index_kind import IndexKind
from embedmill.pipeline.index.searchable import FaissIndex

__all__ = ["map_index"]

_limit_lock = threading.Lock()


def map_index(path: Path, kind: IndexKind, parameters: Mapping[str, int]) -> FaissIndex:
    """Open a local file whose sha256 was checked, without reading it into memory.

    As in `IndexKind.load`, a limit bounds the lengths that FAISS reads from the file. With
    IO_FLAG_MMAP_IFC it takes large arrays from the map and checks them against its end; the
    older IO_FLAG_MMAP maps inverted lists alone.

    Raises:
        CorruptArtifactError: FAISS cannot read the file.
    """
    limit = path.stat().st_size + kind.unstored_bytes(parameters) + 1
    try:
        return kind.open(_read(path, limit), parameters)
    except RuntimeError as error:
        raise CorruptArtifactError(
            f"is no index that FAISS {faiss.__version__} can read",
            where=str(path),
            todo="Run again with --rebuild from stage 'index', or use the release that wrote it",
        ) from error


def _read(path: Path, limit: int) -> Any:
    """The FAISS index; the limit is one of the process, so files are read one at a time."""
    with _limit_lock:
        before = faiss.get_deserialization_vector_byte_limit()
        faiss.set_deserialization_vector_byte_limit(limit)
        try:
            return faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
        finally:
            faiss.set_deserialization_vector_byte_limit(before)
