"""What the tools that the formats are for see: ids and vectors of a side."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import pytest

__all__ = ["READERS", "Read"]

Numbers = npt.NDArray[Any]
Read = tuple[list[str], Numbers]


def of_ids(folder: Path, side: str) -> list[str]:
    found: list[str] = pq.read_table(folder / f"{side}.ids.parquet")["id"].to_pylist()
    return found


def read_parquet(folder: Path, side: str) -> Read:
    import polars as pl

    table = pl.read_parquet(folder / f"{side}.parquet")
    return table["id"].to_list(), table["vector"].to_numpy()


def read_npy(folder: Path, side: str) -> Read:
    table = np.load(folder / f"{side}.npy", mmap_mode="r", allow_pickle=False)
    return of_ids(folder, side), table


def read_safetensors(folder: Path, side: str) -> Read:
    from safetensors import safe_open

    with safe_open(folder / f"{side}.safetensors", "numpy") as file:
        assert list(file.keys()) == ["vectors"]
        return of_ids(folder, side), file.get_tensor("vectors")


def read_faiss(folder: Path, side: str) -> Read:
    import faiss

    engine = faiss.read_index(str(folder / f"{side}.faiss"))
    rows = faiss.vector_to_array(engine.id_map)
    table = pq.read_table(folder / f"{side}.ids.parquet")
    assert table["row"].to_pylist() == rows.tolist()
    vectors = np.stack([engine.reconstruct(int(row)) for row in rows])
    _, found = engine.search(vectors[:5], len(rows))
    assert {int(row) for row in found[0]} == set(rows.tolist())
    return table["id"].to_pylist(), vectors


def of_gensim(path: Path, binary: bool) -> Read:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        from gensim.models import KeyedVectors

        table = KeyedVectors.load_word2vec_format(str(path), binary=binary)
    assert len(set(table.index_to_key)) == len(table.index_to_key)
    return [unquote(word) for word in table.index_to_key], table.vectors


def read_word2vec(folder: Path, side: str) -> Read:
    return of_gensim(folder / f"{side}.txt", binary=False)


def read_word2vec_binary(folder: Path, side: str) -> Read:
    return of_gensim(folder / f"{side}.bin", binary=True)


def read_projector(folder: Path, side: str) -> Read:
    """As the projector does: split at newlines and tabs, the first row of several columns a header.

    (tensorboard/plugins/projector: parseTensors, parseMetadata.)
    """
    vectors, meta = (
        [line.split("\t") for line in (folder / side / name).read_text("utf-8").split("\n") if line]
        for name in ("vectors.tsv", "metadata.tsv")
    )
    head, *rows = meta
    assert len(rows) == len(vectors)
    assert {len(row) for row in rows} == {len(head)}
    if side == "items":
        assert head == ["title", "id", "count", "categories"]
        assert plain(rows[1][0]) == "Title\t1\nof \\ it"
        assert [plain(row[3]) for row in rows[:2]] == ["", "one|two\ttabs"]
    return [plain(row[head.index("id")]) for row in rows], np.array(vectors, np.float32)


def plain(text: str) -> str:
    """A text without its backslashes."""
    escapes = {"t": "\t", "n": "\n", "r": "\r", "\\": "\\"}
    out, letters = "", iter(text)
    for letter in letters:
        out += escapes[next(letters)] if letter == "\\" else letter
    return out


def read_lance(folder: Path, side: str) -> Read:
    import lancedb

    opened = lancedb.connect(str(folder)).open_table(side)
    table = opened.to_arrow()
    vectors = np.stack([np.array(v) for v in table["vector"].to_pylist()])
    if vectors.dtype == np.float64:
        query = vectors[3].astype(np.float32)
        best = opened.search(query).distance_type("dot").limit(3).to_arrow()
        assert (vectors @ query)[table["id"].to_pylist().index(best["id"][0].as_py())] == max(
            vectors @ query
        )
    return table["id"].to_pylist(), vectors


def read_qdrant(folder: Path, side: str) -> Read:
    from qdrant_client import QdrantClient

    client = QdrantClient(path=str(folder))
    points, _ = client.scroll(side, limit=1000, with_vectors=True)
    points.sort(key=lambda point: int(point.id))
    vectors = np.array([point.vector for point in points], np.float32)
    near = client.query_points(side, query=vectors[3].tolist(), limit=3).points
    assert near[0].score == pytest.approx(max(vectors @ vectors[3]), rel=1e-5)
    client.close()
    return [str((point.payload or {})["id"]) for point in points], vectors


READERS: dict[str, Callable[[Path, str], Read]] = {
    "parquet": read_parquet,
    "npy": read_npy,
    "safetensors": read_safetensors,
    "faiss": read_faiss,
    "word2vec": read_word2vec,
    "word2vec-binary": read_word2vec_binary,
    "projector": read_projector,
    "lance": read_lance,
    "qdrant": read_qdrant,
}
