"""Formats of OpenSearch and Elasticsearch: bodies of their bulk API, and the index they go into.

OpenSearch's documentation, "k-NN vector" and "Bulk"; Elasticsearch's, "Dense vector field type".
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from embedmill.pipeline.formats.documents import files_of_lines, json_with, write_json
from embedmill.pipeline.formats.vector_table import VectorTable

__all__ = [
    "BULK_FILES",
    "bulk_line",
    "elasticsearch",
    "elasticsearch_index",
    "opensearch",
    "opensearch_index",
]

# Lucene takes terms of at most 32,766 bytes; longer ids are stored and not found by.
_KEYWORD = {"type": "keyword", "ignore_above": 8191}


def opensearch(table: VectorTable, folder: Path) -> None:
    """Write `SIDE.index.json`, which creates the index that `BULK_FILES` go into."""
    write_json(folder / f"{table.side}.index.json", opensearch_index(table.dim))


def elasticsearch(table: VectorTable, folder: Path) -> None:
    """Write the same for Elasticsearch."""
    write_json(folder / f"{table.side}.index.json", elasticsearch_index(table.dim))


def opensearch_index(dim: int) -> dict[str, Any]:
    """The body that creates an index: `PUT SIDE`."""
    method = {"name": "hnsw", "engine": "faiss", "space_type": "innerproduct"}
    vector = {"type": "knn_vector", "dimension": dim, "method": method}
    return {"settings": {"index": {"knn": True}}, "mappings": _mappings(vector)}


def elasticsearch_index(dim: int) -> dict[str, Any]:
    """The same for Elasticsearch, 8.11 or later."""
    vector = {
        "type": "dense_vector",
        "dims": dim,
        "index": True,
        "similarity": "max_inner_product",
        "index_options": {"type": "hnsw"},
    }
    return {"mappings": _mappings(vector)}


def _mappings(vector: dict[str, Any]) -> dict[str, Any]:
    return {
        "dynamic": "strict",
        "properties": {
            "row": {"type": "long"},
            "id": _KEYWORD,
            "count": {"type": "long"},
            "title": {"type": "text", "fields": {"keyword": _KEYWORD}},
            "categories": _KEYWORD,
            "vector": vector,
        },
    }


def bulk_line(document: dict[str, Any], vector: str) -> str:
    """Action and document: the id of a document is its row, as raw ids may be too long."""
    action = json.dumps({"index": {"_id": str(document["row"])}})
    return f"{action}\n{json_with(document, 'vector', vector)}"


# Each is a body of `POST SIDE/_bulk`.
BULK_FILES = files_of_lines("{side}.{number:05d}.ndjson", bulk_line)
