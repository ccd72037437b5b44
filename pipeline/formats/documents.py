"""Documents of JSON, a vector each, a piece of a table at a time."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from embedmill.pipeline.formats.line_writer import NUMBERS, join_numbers
from embedmill.pipeline.formats.numbered_files import NumberedFiles
from embedmill.pipeline.formats.vector_table import NumberBlock, VectorTable

__all__ = [
    "DOCUMENTS",
    "coordinates_of_file",
    "documents",
    "files_of_lines",
    "json_with",
    "write_json",
]

# Of a file: what servers take in one request, at a few KB each.
DOCUMENTS = 5000
Document = dict[str, Any]


def coordinates_of_file(dim: int) -> int:
    """Coordinates of a file of at most DOCUMENTS vectors; about NUMBERS where vectors have many."""
    return min(NUMBERS, DOCUMENTS * dim)


def documents(table: VectorTable, block: NumberBlock) -> Iterator[tuple[Document, str]]:
    """Documents (row, id, count, and payload) with their vectors as JSON arrays.

    Args:
        table: that the vectors are of.
        block: some of them.
    """
    numbers = join_numbers(block.vector_ND, ",").to_pylist()
    columns = (block.row_N.tolist(), block.ids.to_pylist(), block.count_N.tolist())
    payloads = table.payload.records(block.ids)
    for row, raw, count, payload, vector in zip(*columns, payloads, numbers, strict=True):
        yield {"row": row, "id": raw, "count": count, **payload}, f"[{vector}]"


def json_with(document: Document, name: str, vector: str) -> str:
    """A document as JSON, with its vector, which is JSON already, under a name."""
    text = json.dumps(document, ensure_ascii=False)
    return f'{text[:-1]}{", " if document else ""}"{name}": {vector}}}'


def files_of_lines(path: str, line: Callable[[Document, str], str]) -> NumberedFiles:
    """Files of a line, or several, for each document.

    Args:
        path: see `NumberedFiles`.
        line: of a document and its vector, without the last newline.
    """

    def write(table: VectorTable, block: NumberBlock, target: Path) -> None:
        lines = (f"{line(document, vector)}\n" for document, vector in documents(table, block))
        target.write_text("".join(lines), encoding="utf-8")

    return NumberedFiles(path, write, coordinates_of_file)


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file for people to read and servers to take."""
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
