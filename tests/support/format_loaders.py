"""What the tools that the formats are for see: ids and vectors of a side."""

from __future__ import annotations

import json
import tempfile
import uuid
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import pytest

__all__ = ["READERS", "Read", "check_payload"]

Numbers = npt.NDArray[Any]
Read = tuple[list[str], Numbers]


def of_ids(folder: Path, side: str) -> list[str]:
    found: list[str] = pq.read_table(folder / f"{side}.ids.parquet")["id"].to_pylist()
    return found


def check_payload(records: Iterable[Sequence[Any]]) -> None:
    """Ids, titles and categories of items are those of the planted world, rows rising."""
    # Row n of the world has the title "Title<tab>n..."; odd ones have two categories.
    records = list(records)
    rows = [int(title.split("\t")[1].split("\n")[0]) for _, title, _ in records]
    assert rows == sorted(set(rows))
    for row, (_, title, categories) in zip(rows, records, strict=True):
        assert title == f"Title\t{row}\nof \\ it"
        assert list(categories or []) == (["one", "two\ttabs"] if row % 2 else [])
    assert len(rows) > 30


def payload_of(records: Iterable[dict[str, Any]]) -> list[tuple[str, str, list[str]]]:
    return [(one["id"], one["title"], one.get("categories") or []) for one in records]


def read_parquet(folder: Path, side: str) -> Read:
    import polars as pl

    table = pl.read_parquet(folder / f"{side}.parquet")
    if side == "items":
        check_payload(table.select("id", "title", "categories").rows())
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
    if side == "items":
        check_payload(payload_of(table.to_pylist()))
        odd = opened.search().where("array_has(categories, 'one')").limit(1000).to_arrow()
        assert 0 < odd.num_rows < table.num_rows
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
    if side == "items":
        check_payload(payload_of(point.payload or {} for point in points))
    near = client.query_points(side, query=vectors[3].tolist(), limit=3).points
    assert near[0].score == pytest.approx(max(vectors @ vectors[3]), rel=1e-5)
    client.close()
    return [str((point.payload or {})["id"]) for point in points], vectors


def json_lines(paths: Iterable[Path]) -> list[Any]:
    texts = [path.read_text("utf-8") for path in sorted(paths)]
    return [json.loads(line) for text in texts for line in text.split("\n") if line]


def read_bulk(folder: Path, side: str) -> Read:
    """Pairs of lines, an action and a document, that have the fields of the mapping alone."""
    lines = json_lines(folder.glob(f"{side}.*.ndjson"))
    actions, documents = lines[::2], lines[1::2]
    index = json.loads((folder / f"{side}.index.json").read_text())
    fields = index["mappings"]["properties"]
    assert fields["vector"].get("dimension", fields["vector"].get("dims")) == 8
    for action, document in zip(actions, documents, strict=True):
        assert action == {"index": {"_id": str(document["row"])}}
        assert document.keys() <= fields.keys()
    if side == "items":
        check_payload(payload_of(documents))
    return [one["id"] for one in documents], np.array([one["vector"] for one in documents])


def read_milvus(folder: Path, side: str) -> Read:
    """A collection of the schema beside the file, in Milvus Lite."""
    from pymilvus import DataType, MilvusClient

    said = json.loads((folder / f"{side}.schema.json").read_text())
    with tempfile.TemporaryDirectory() as scratch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        client = MilvusClient(f"{scratch}/m.db")
        schema = client.create_schema()
        for field in said["fields"]:
            kind = {"datatype": DataType[field["type"]]}
            if "element_type" in field:
                kind["element_type"] = DataType[field["element_type"]]
            rest = {k: v for k, v in field.items() if k not in ("name", "type", "element_type")}
            schema.add_field(field["name"], **kind, **rest)
        params = client.prepare_index_params()
        params.add_index(
            said["index"]["field"], index_type="FLAT", metric_type=said["index"]["metric_type"]
        )
        client.create_collection(side, schema=schema, index_params=params)
        rows = pq.read_table(folder / f"{side}.parquet").to_pylist()
        client.insert(side, rows)
        client.flush(side)
        client.load_collection(side)
        found = client.query(side, filter="row >= 0", output_fields=["*"], limit=1000)
        found.sort(key=lambda one: one["row"])
        if side == "items":
            check_payload(payload_of(found))
            some = client.query(
                side, filter="array_contains(categories, 'one')", output_fields=["row"], limit=1000
            )
            assert 0 < len(some) < len(found)
        vectors = np.array([one["vector"] for one in found], np.float32)
        (near,) = client.search(side, data=[vectors[3].tolist()], limit=1)
        assert near[0]["distance"] == pytest.approx(max(vectors @ vectors[3]), rel=1e-5)
        client.close()
    return [one["id"] for one in found], vectors


def read_pinecone(folder: Path, side: str) -> Read:
    """Pinecone's documentation, "Import records": columns id, values, metadata as JSON."""
    tables = [pq.read_table(path) for path in sorted((folder / side).glob("*.parquet"))]
    rows = [row for table in tables for row in table.to_pylist()]
    assert {tuple(row) for row in rows} == {("id", "values", "metadata")}
    assert [int(row["id"]) for row in rows] == sorted(int(row["id"]) for row in rows)
    metadata = [json.loads(row["metadata"]) for row in rows]
    if side == "items":
        check_payload(payload_of(metadata))
    return [one["id"] for one in metadata], np.array([row["values"] for row in rows], np.float32)


def read_vertex(folder: Path, side: str) -> Read:
    """Vertex AI's documentation, "Input data format and structure": a JSON object a line."""
    points = json_lines((folder / side).glob("*.json"))
    if side == "items":
        allowed = [(one.get("restricts") or [{}])[0].get("allow", []) for one in points]
        titles = [one["embedding_metadata"]["title"] for one in points]
        check_payload(zip(titles, titles, allowed, strict=True))
    return [one["id"] for one in points], np.array([one["embedding"] for one in points], np.float32)


def read_weaviate(folder: Path, side: str) -> Read:
    """Weaviate's documentation, "/v1/batch/objects": properties are those of the class."""
    said = json.loads((folder / f"{side}.class.json").read_text())
    paths = sorted(folder.glob(f"{side}.0*.json"))
    objects = [one for path in paths for one in json.loads(path.read_text("utf-8"))["objects"]]
    names = {one["name"] for one in said["properties"]}
    assert all(one["properties"].keys() == names for one in objects)
    assert all(one["class"] == said["class"] and uuid.UUID(one["id"]) for one in objects)
    found = [one["properties"] | {"id": one["properties"]["raw_id"]} for one in objects]
    if side == "items":
        check_payload(payload_of(found))
    return [one["id"] for one in found], np.array([one["vector"] for one in objects], np.float32)


def read_duckdb(folder: Path, side: str) -> Read:
    import duckdb

    with duckdb.connect(str(folder / f"{side}.duckdb"), read_only=True) as database:
        found = database.execute(f"SELECT id, vector FROM {side} ORDER BY row").fetchall()
        vectors = np.array([vector for _, vector in found], np.float32)
        kind = f"FLOAT[{vectors.shape[1]}]"
        score = f"array_inner_product(vector, ?::{kind})"
        best = database.execute(
            f"SELECT {score} FROM {side} ORDER BY 1 DESC LIMIT 1", [vectors[3].tolist()]
        ).fetchone()
        assert best is not None
        assert best[0] == pytest.approx(max(vectors @ vectors[3]), rel=1e-5)
        if side == "items":
            rows = database.execute("SELECT id, title, categories FROM items ORDER BY row")
            check_payload(rows.fetchall())
    return [raw for raw, _ in found], vectors


def read_redis(folder: Path, side: str) -> Read:
    """Commands of Redis' protocol, as `redis-cli --pipe` sends them."""

    def commands(name: str) -> Iterator[list[bytes]]:
        data, at = (folder / name).read_bytes(), 0
        while at < len(data):
            end = data.index(b"\r\n", at)
            words, at = int(data[at + 1 : end]), end + 2
            command = []
            for _ in range(words):
                end = data.index(b"\r\n", at)
                size = int(data[at + 1 : end])
                command.append(data[end + 2 : end + 2 + size])
                assert data[end + 2 + size : end + 4 + size] == b"\r\n"
                at = end + 4 + size
            yield command

    (create,) = commands(f"{side}.index.resp")
    assert create[:6] == [b"FT.CREATE", side.encode(), b"ON", b"HASH", b"PREFIX", b"1"]
    hashes = [dict(zip(c[2::2], c[3::2], strict=True)) for c in commands(f"{side}.resp")]
    if side == "items":
        lists = [one[b"categories"].decode() for one in hashes]
        check_payload(
            [
                (one[b"id"].decode(), one[b"title"].decode(), text.split("\x1f") if text else [])
                for one, text in zip(hashes, lists, strict=True)
            ]
        )
    vectors = np.array([np.frombuffer(one[b"vector"], "<f4") for one in hashes])
    return [one[b"id"].decode() for one in hashes], vectors


def read_chroma(folder: Path, side: str) -> Read:
    import chromadb

    client = chromadb.PersistentClient(str(folder))
    collection = client.get_collection(side)
    found = collection.get(include=["embeddings", "metadatas"])
    order = np.argsort([int(one) for one in found["ids"]])
    metadata = [found["metadatas"][at] for at in order]
    vectors = np.asarray(found["embeddings"], np.float32)[order]
    if side == "items":
        check_payload(payload_of(metadata))
    client.close()
    return [str(one["id"]) for one in metadata], vectors


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
    "opensearch": read_bulk,
    "elasticsearch": read_bulk,
    "milvus": read_milvus,
    "pinecone": read_pinecone,
    "vertex": read_vertex,
    "weaviate": read_weaviate,
    "duckdb": read_duckdb,
    "redis": read_redis,
    "chroma": read_chroma,
}
