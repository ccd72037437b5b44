"""Rejected lines of a log by reason, with examples."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from embedmill.pipeline.store.artifact import Artifact
from embedmill.schemas.events import REASONS, REJECTED

__all__ = ["EXAMPLES", "rejected_lines"]

EXAMPLES = 3  # lines shown per reason
_RAW_BYTES = 400  # of a line

Line = tuple[str, int, bytes]  # file, line number, raw bytes


def rejected_lines(events: Artifact) -> list[dict[str, Any]]:
    """Reasons by falling count (ties by name), each with its first lines as examples."""
    counts = {
        name.removeprefix("rejected."): count
        for name, count in events.counters.items()
        if name.startswith("rejected.") and count
    }
    examples = _examples(events)
    return [
        {
            "reason": reason,
            "meaning": REASONS.get(reason, ""),
            "count": count,
            "examples": examples.get(reason, []),
        }
        for reason, count in sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    ]


def _examples(events: Artifact) -> dict[str, list[dict[str, Any]]]:
    """The first few lines of each reason by (file, line), in whatever order files are stored."""
    first: dict[str, list[Line]] = {}
    for path in [entry.path for entry in events.files(REJECTED.folder) if entry.rows]:
        for batch in events.batches(path):
            for reason, lines in _first_lines(pa.Table.from_batches([batch])):
                first[reason] = heapq.nsmallest(EXAMPLES, [*first.get(reason, []), *lines])
    return {
        reason: [
            {"file": PurePosixPath(file).name, "line": line, "raw": _readable(raw)}
            for file, line, raw in lines
        ]
        for reason, lines in first.items()
    }


def _first_lines(rejects: pa.Table) -> Iterator[tuple[str, list[Line]]]:
    """The first few lines of each reason in a batch; only these become Python objects."""
    keys = rejects.select(["file", "line", "reason"])
    keys = keys.append_column("position", pa.array(range(rejects.num_rows), pa.int64()))
    order = [("file", "ascending"), ("line", "ascending")]
    for reason in keys["reason"].unique().to_pylist():
        of_reason = keys.filter(pc.equal(keys["reason"], reason))
        positions = of_reason["position"].take(pc.select_k_unstable(of_reason, EXAMPLES, order))
        rows = rejects.take(positions).to_pylist()
        yield reason, [(row["file"], row["line"], row["raw"]) for row in rows]


def _readable(raw: bytes) -> str:
    """The start of a line as text; bytes that are not UTF-8 show as \\xNN."""
    text = raw[:_RAW_BYTES].decode("utf-8", errors="backslashreplace")
    return text + ("…" if len(raw) > _RAW_BYTES else "")
