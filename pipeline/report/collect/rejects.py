"""Rejected lines of a log by reason, with examples."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from pathlib import PurePosixPath

import pyarrow as pa
import pyarrow.compute as pc

from embedmill.pipeline.views.events import Events
from embedmill.schemas.events import REASONS
from embedmill.schemas.report import RejectExample, RejectReason

__all__ = ["EXAMPLES", "rejected_lines"]

EXAMPLES = 3  # lines shown per reason
_RAW_BYTES = 400  # of a line

Line = tuple[str, int, bytes]  # file, line number, raw bytes


def rejected_lines(events: Events) -> list[RejectReason]:
    """Reasons by falling count (ties by name), each with its first lines as examples."""
    counts = {
        name.removeprefix("rejected."): count
        for name, count in events.artifact.counters.items()
        if name.startswith("rejected.") and count
    }
    examples = _examples(events)
    return [
        RejectReason(
            reason=reason,
            meaning=REASONS.get(reason, ""),
            count=count,
            examples=examples.get(reason, []),
        )
        for reason, count in sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    ]


def _examples(events: Events) -> dict[str, list[RejectExample]]:
    """The first few lines of each reason by (file, line), in whatever order files are stored."""
    first: dict[str, list[Line]] = {}
    for batch in events.rejects():
        for reason, lines in _first_lines(pa.Table.from_batches([batch])):
            first[reason] = heapq.nsmallest(EXAMPLES, [*first.get(reason, []), *lines])
    return {
        reason: [
            RejectExample(file=PurePosixPath(file).name, line=line, raw=_readable(raw))
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
