"""Formats that hosted stores import from a bucket: Milvus, Pinecone, Vertex AI, Weaviate."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from embedmill.pipeline.formats.documents import (
    coordinates_of_file,
    documents,
    files_of_lines,
    json_with,
    write_json,
)
from embedmill.pipeline.formats.line_writer import NUMBERS
from embedmill.pipeline.formats.numbered_files import NumberedFiles
from embedmill.pipeline.formats.vector_table import IDS, NumberBlock, VectorTable

__all__ = [
    "MILVUS_LIMITS",
    "PINECONE_FILES",
    "VERTEX_FILES",
    "WEAVIATE_FILES",
    "milvus",
    "vertex",
    "weaviate",
]

# The greatest that Milvus allows: bytes of a text, elements of an array.
MILVUS_LIMITS = {"max_length": 65_535, "max_capacity": 4096}
_VECTOR = pa.list_(pa.field("item", pa.float32(), nullable=False))
_PINECONE = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("values", _VECTOR, nullable=False),
        pa.field("metadata", pa.string(), nullable=False),
    ]
)


def milvus(table: VectorTable, folder: Path) -> None:
    """Write `SIDE.parquet` for Milvus' bulk import, and `SIDE.schema.json` of its collection."""
    fields = [
        {"name": "row", "type": "INT64", "is_primary": True},
        {"name": "id", "type": "VARCHAR", "max_length": MILVUS_LIMITS["max_length"]},
        {"name": "count", "type": "INT64"},
    ]
    if table.payload.exists:
        text = {"type": "VARCHAR", "max_length": MILVUS_LIMITS["max_length"]}
        fields += [
            {"name": "title", **text},
            {"name": "categories", "type": "ARRAY", "element_type": "VARCHAR", **MILVUS_LIMITS},
        ]
    fields.append({"name": "vector", "type": "FLOAT_VECTOR", "dim": table.dim})
    index = {"field": "vector", "index_type": "HNSW", "metric_type": "IP"}
    write_json(folder / f"{table.side}.schema.json", {"fields": fields, "index": index})
    schema = pa.schema([*IDS, *table.payload.fields, pa.field("vector", _VECTOR, nullable=False)])
    path = folder / f"{table.side}.parquet"
    with pq.ParquetWriter(path, schema, compression="zstd") as out:
        for block in (piece for whole in table.blocks() for piece in whole.pieces(NUMBERS)):
            columns = [pa.array(block.row_N), block.ids, pa.array(block.count_N)]
            columns += [*table.payload.columns(block.ids), _lists(block.vector_ND)]
            out.write_batch(pa.RecordBatch.from_arrays(columns, schema=schema))


def _pinecone_file(table: VectorTable, block: NumberBlock, path: Path) -> None:
    columns = (block.ids.to_pylist(), block.count_N.tolist(), table.payload.records(block.ids))
    metadata = [
        json.dumps({"id": raw, "count": count, **payload}, ensure_ascii=False)
        for raw, count, payload in zip(*columns, strict=True)
    ]
    ids = [str(row) for row in block.row_N.tolist()]
    arrays = [pa.array(ids), _lists(block.vector_ND), pa.array(metadata)]
    pq.write_table(pa.Table.from_arrays(arrays, schema=_PINECONE), path, compression="zstd")


def vertex(table: VectorTable, folder: Path) -> None:
    """Write `SIDE.index.json`, the metadata of a Vertex AI Vector Search index."""
    config = {
        "dimensions": table.dim,
        "approximateNeighborsCount": 100,
        "distanceMeasureType": "DOT_PRODUCT_DISTANCE",
        "algorithmConfig": {"treeAhConfig": {}},
    }
    write_json(folder / f"{table.side}.index.json", {"config": config})


def _vertex_line(document: dict[str, Any], vector: str) -> str:
    datapoint: dict[str, Any] = {"id": document["id"]}
    if document.get("categories"):
        allow = document["categories"]
        datapoint["restricts"] = [{"namespace": "categories", "allow": allow}]
    datapoint["numeric_restricts"] = [{"namespace": "count", "value_int": document["count"]}]
    names = [name for name in ("row", "title") if name in document]
    datapoint["embedding_metadata"] = {name: document[name] for name in names}
    return json_with(datapoint, "embedding", vector)


def weaviate(table: VectorTable, folder: Path) -> None:
    """Write `SIDE.class.json`, a body of /v1/schema.

    "id" is a word of Weaviate's: the raw id is the property `raw_id`.
    """
    kinds = {"row": "int", "raw_id": "text", "count": "int"}
    kinds |= {"title": "text", "categories": "text[]"} if table.payload.exists else {}
    exact = {"raw_id", "categories"}
    properties = [
        {"name": key, "dataType": [kind], **({"tokenization": "field"} if key in exact else {})}
        for key, kind in kinds.items()
    ]
    index = {"vectorIndexType": "hnsw", "vectorIndexConfig": {"distance": "dot"}}
    write_json(
        folder / f"{table.side}.class.json",
        {"class": _class_of(table), "vectorizer": "none", **index, "properties": properties},
    )


def _class_of(table: VectorTable) -> str:
    return table.side.capitalize()


def _weaviate_file(table: VectorTable, block: NumberBlock, path: Path) -> None:
    objects = []
    for document, vector in documents(table, block):
        key = str(uuid.uuid5(uuid.NAMESPACE_URL, f"embedmill:{table.side}/{document['row']}"))
        said = {("raw_id" if field == "id" else field): v for field, v in document.items()}
        whole = {"class": _class_of(table), "id": key, "properties": said}
        objects.append(json_with(whole, "vector", vector))
    path.write_text(f'{{"objects": [{",".join(objects)}]}}\n', encoding="utf-8")


def _lists(vector_ND: np.ndarray[Any, np.dtype[np.float32]]) -> pa.Array:
    count, dim = vector_ND.shape
    ends = pa.array(np.arange(count + 1, dtype=np.int32) * dim)
    return pa.ListArray.from_arrays(ends, pa.array(vector_ND.reshape(-1)), type=_VECTOR)


# The namespace SIDE of Pinecone's import from object storage. A record's id is its row: Pinecone's
# ids are ASCII and at most 512 characters.
PINECONE_FILES = NumberedFiles("{side}/{number:05d}.parquet", _pinecone_file, lambda dim: NUMBERS)
# The input of a Vertex AI Vector Search index. Answers are ids alone, so that the id is the raw
# one. Categories are restricts.
VERTEX_FILES = files_of_lines("{side}/{number:05d}.json", _vertex_line)
# Bodies of /v1/batch/objects.
WEAVIATE_FILES = NumberedFiles("{side}.{number:05d}.json", _weaviate_file, coordinates_of_file)
