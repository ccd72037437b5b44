"""The formats by name. A new one is a function and its line here."""

from __future__ import annotations

import importlib.util

from embedmill.pipeline.errors import ConfigError, MachineError
from embedmill.pipeline.formats.arrays import faiss_file, npy, safetensors
from embedmill.pipeline.formats.arrow_tables import lance, parquet
from embedmill.pipeline.formats.contract import Format
from embedmill.pipeline.formats.postgres import pgvector
from embedmill.pipeline.formats.projector import projector
from embedmill.pipeline.formats.qdrant import qdrant
from embedmill.pipeline.formats.word2vec import word2vec, word2vec_binary

__all__ = ["FORMATS", "format_of"]


def format_of(name: str, dtype: str) -> Format:
    """The format of a name.

    Raises:
        ConfigError: there is no such format, or it has no such numbers; names those there are.
        MachineError: what it needs is not installed.
    """
    if name not in FORMATS:
        raise ConfigError(f"no format '{name}'; there are {', '.join(FORMATS)}")
    found = FORMATS[name]
    if dtype not in found.dtypes:
        raise ConfigError(f"format {name} has no {dtype}; it has {', '.join(found.dtypes)}")
    if found.package and importlib.util.find_spec(found.package) is None:
        raise MachineError(
            f"format {name} needs the package {found.package}, which is not installed",
            todo=f"pip install 'embedmill[{name}]'",
        )
    return found


_BESIDE = "in SIDE.ids.parquet, in the order of the vectors"
_COLUMN = "in column id"
_ALL = ("float32", "float16", "int8")

FORMATS: dict[str, Format] = {
    "parquet": Format(parquet, _ALL, _COLUMN),
    "npy": Format(npy, _ALL, _BESIDE),
    "safetensors": Format(safetensors, _ALL, _BESIDE),
    "faiss": Format(faiss_file, _ALL, "rows in the index, and their ids in SIDE.ids.parquet"),
    "word2vec": Format(
        word2vec, _ALL, "white space, control characters and % percent-encoded (urllib's unquote)"
    ),
    "word2vec-binary": Format(
        word2vec_binary,
        ("float32",),
        "white space, control characters and % percent-encoded (urllib's unquote)",
    ),
    "projector": Format(projector, ("float32", "float16"), "tab, newline and \\ by a backslash"),
    "lance": Format(lance, _ALL, _COLUMN, package="lancedb"),
    "pgvector": Format(pgvector, ("float32", "float16"), _COLUMN),
    "qdrant": Format(qdrant, ("float32",), "in the payload, under id", package="qdrant_client"),
}
