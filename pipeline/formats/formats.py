"""The formats by name.

A new format is a function that writes it, or `NumberedFiles` where it is several files, and its
entry in `FORMATS`.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from embedmill.pipeline.errors import ConfigError, MachineError
from embedmill.pipeline.formats.arrays import faiss_file, npy, safetensors
from embedmill.pipeline.formats.arrow_tables import lance, parquet
from embedmill.pipeline.formats.bulk_imports import (
    PINECONE_FILES,
    VERTEX_FILES,
    WEAVIATE_FILES,
    milvus,
    vertex,
    weaviate,
)
from embedmill.pipeline.formats.databases import chroma, duckdb_file, redis
from embedmill.pipeline.formats.numbered_files import NumberedFiles
from embedmill.pipeline.formats.postgres import pgvector
from embedmill.pipeline.formats.projector import projector
from embedmill.pipeline.formats.qdrant import qdrant
from embedmill.pipeline.formats.search_engines import BULK_FILES, elasticsearch, opensearch
from embedmill.pipeline.formats.vector_table import VectorTable
from embedmill.pipeline.formats.word2vec import word2vec, word2vec_binary

__all__ = ["FORMATS", "Format", "find_format"]


@dataclass(frozen=True)
class Format:
    """A format: how a table is written into a folder, and what readers of the folder must know.

    Attributes:
        write: writes the vectors of one side; where there are `files`, what stands beside them, if
            anything does.
        dtypes: number types that the format has.
        ids: where the raw ids are, and how they are escaped.
        package: what must be installed, by the extra of the format's name; "" for nothing.
        files: several files of vectors, which tasks write; None where one process writes a side.
    """

    write: Callable[[VectorTable, Path], None] | None
    dtypes: tuple[str, ...]
    ids: str
    package: str = ""
    files: NumberedFiles | None = None


_ALL_DTYPES = ("float32", "float16", "int8")
_FLOAT32 = ("float32",)
_ID_FIELD = "in field id"
_IDS_FILE = "in SIDE.ids.parquet, in the order of the vectors"
_ID_COLUMN = "in column id"
_PERCENT_ENCODED = "white space, control characters and % percent-encoded (urllib's unquote)"

FORMATS: dict[str, Format] = {
    "parquet": Format(parquet, _ALL_DTYPES, _ID_COLUMN),
    "npy": Format(npy, _ALL_DTYPES, _IDS_FILE),
    "safetensors": Format(safetensors, _ALL_DTYPES, _IDS_FILE),
    "faiss": Format(
        faiss_file, _ALL_DTYPES, "rows in the index, and their ids in SIDE.ids.parquet"
    ),
    "word2vec": Format(word2vec, _ALL_DTYPES, _PERCENT_ENCODED),
    "word2vec-binary": Format(word2vec_binary, ("float32",), _PERCENT_ENCODED),
    "projector": Format(projector, ("float32", "float16"), "tab, newline and \\ by a backslash"),
    "lance": Format(lance, _ALL_DTYPES, _ID_COLUMN, package="lancedb"),
    "pgvector": Format(pgvector, ("float32", "float16"), _ID_COLUMN),
    "qdrant": Format(qdrant, ("float32",), "in the payload, under id", package="qdrant_client"),
    "opensearch": Format(opensearch, _FLOAT32, _ID_FIELD, files=BULK_FILES),
    "elasticsearch": Format(elasticsearch, _FLOAT32, _ID_FIELD, files=BULK_FILES),
    "milvus": Format(milvus, _FLOAT32, _ID_COLUMN),
    "pinecone": Format(None, _FLOAT32, "in the metadata, under id", files=PINECONE_FILES),
    "vertex": Format(vertex, _FLOAT32, "the id of a datapoint", files=VERTEX_FILES),
    "weaviate": Format(weaviate, _FLOAT32, "in the property raw_id", files=WEAVIATE_FILES),
    "duckdb": Format(duckdb_file, _FLOAT32, _ID_COLUMN),
    "redis": Format(redis, _FLOAT32, _ID_FIELD),
    "chroma": Format(chroma, _FLOAT32, "in the metadata, under id", package="chromadb"),
}


def find_format(name: str, dtype: str) -> Format:
    """The format of a name.

    Raises:
        ConfigError: there is no such format, or it does not have the number type.
        MachineError: a package that it needs is not installed.
    """
    if name not in FORMATS:
        raise ConfigError(f"no format '{name}'; there are {', '.join(FORMATS)}")
    format_ = FORMATS[name]
    if dtype not in format_.dtypes:
        raise ConfigError(f"format {name} has no {dtype}; it has {', '.join(format_.dtypes)}")
    if format_.package and importlib.util.find_spec(format_.package) is None:
        raise MachineError(
            f"format {name} needs the package {format_.package}, which is not installed",
            todo=f"pip install 'embedmill[{name}]'",
        )
    return format_
