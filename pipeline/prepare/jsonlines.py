"""JSON lines: one object per line. Numbers and strings are taken; others count as missing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.prepare.block import Block, Layout, Rejects, Split, shortened
from pipeline.prepare.text import Chunk, chunks
from pipeline.storage import Source

__all__ = ["blocks", "cut"]


def cut(source: Source, layout: Layout) -> list[tuple[int, int]]:
    """Where a file may be cut: nowhere yet, it is read whole."""
    return [(0, -1)] if source.bytes else []


def blocks(split: Split, layout: Layout) -> Iterator[Block]:
    """The records of a file; values as strings."""
    for chunk in chunks(split.url, layout.encoding):
        yield _block(chunk, layout)


def _block(chunk: Chunk, layout: Layout) -> Block:
    rejects = Rejects([], [], [])
    records, numbers, kept = [], [], []
    for position, line in enumerate(chunk.lines.to_pylist()):
        record = None if position in chunk.bad else _object(line)
        if record is not None:
            records.append(record)
            numbers.append(chunk.first + position)
            kept.append(position)
            continue
        rejects.lines.append(chunk.first + position)
        rejects.reasons.append("encoding" if position in chunk.bad else "json")
        rejects.raw.append(chunk.bad.get(position) or line.encode())
    names = layout.wanted or tuple(dict.fromkeys(name for r in records for name in r))
    columns = {n: pa.array([_text(r.get(n)) for r in records], pa.string()) for n in names}
    lines = chunk.lines.take(pa.array(kept, pa.int64()))
    return Block(
        columns, np.array(numbers, np.int64), lambda rows: shortened(lines.take(rows)), rejects
    )


def _object(line: str) -> dict[str, Any] | None:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _text(value: Any) -> str | None:
    """A string or number as text; None (missing) for anything else, lone surrogates too."""
    if isinstance(value, str):
        return value if value.isascii() or _encodable(value) else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return repr(value)


def _encodable(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
