"""Documents of JSON, a vector each, a piece of a table at a time."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from embedmill.pipeline.formats.line_writer import NUMBERS, join_numbers
from embedmill.pipeline.formats.vector_table import NumberBlock, VectorTable

__all__ = ["DOCUMENTS", "documents", "json_with", "numbered", "write_json"]

# Of a file: what servers take in one request, at a few KB each.
DOCUMENTS = 5000
Document = dict[str, Any]


def documents(table: VectorTable) -> Iterator[list[tuple[Document, str]]]:
    """Documents (row, id, count, and payload) with their vectors as JSON arrays, a file at a time.

    A file has at most DOCUMENTS, and about NUMBERS numbers.
    """
    limit = min(NUMBERS, DOCUMENTS * table.dim)
    for block in (piece for whole in table.blocks() for piece in whole.pieces(limit)):
        yield list(_of_block(table, block))


def _of_block(table: VectorTable, block: NumberBlock) -> Iterator[tuple[Document, str]]:
    numbers = join_numbers(block.vector_ND, ",").to_pylist()
    columns = (block.row_N.tolist(), block.ids.to_pylist(), block.count_N.tolist())
    payloads = table.payload.records(block.ids)
    for row, raw, count, payload, vector in zip(*columns, payloads, numbers, strict=True):
        yield {"row": row, "id": raw, "count": count, **payload}, f"[{vector}]"


def json_with(document: Document, name: str, vector: str) -> str:
    """A document as JSON, with its vector, which is JSON already, under a name."""
    text = json.dumps(document, ensure_ascii=False)
    return f'{text[:-1]}{", " if document else ""}"{name}": {vector}}}'


def numbered(
    table: VectorTable, path: Callable[[int], Path], line: Callable[[Document, str], str]
) -> None:
    """Write files of lines.

    Args:
        table: the vectors.
        path: of a file, by its number.
        line: the line, or lines, of a document and its vector, without the last newline.
    """
    for number, some in enumerate(documents(table)):
        text = "".join(f"{line(document, vector)}\n" for document, vector in some)
        path(number).write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file for people to read and servers to take."""
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
