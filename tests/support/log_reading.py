"""A log read without an engine: the batches of each slice, and every line accounted for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa

from embedmill.pipeline.config import EventsConfig
from embedmill.pipeline.prepare.parse.clean import clean, cleaning_rules
from embedmill.pipeline.prepare.readers import text_lines
from embedmill.pipeline.prepare.readers.file_formats import FORMATS, read_slice
from embedmill.pipeline.prepare.readers.file_slice import FileSlice
from embedmill.pipeline.prepare.readers.parsed_batch import ParsedBatch
from embedmill.pipeline.prepare.readers.read_plan import layout_of, plan_reads

Event = tuple[str, str, int | None, float]


@dataclass
class Read:
    """Events as (user, item, microseconds, weight), rejects as (file, line, reason, bytes).

    `spans` are the first line and the number of lines of every record, good or bad.
    """

    events: list[Event] = field(default_factory=list)
    rejects: list[tuple[str, int, str, bytes]] = field(default_factory=list)
    spans: list[tuple[int, int]] = field(default_factory=list)


def read_log(**config: Any) -> Read:
    """All slices of a log, one after the other."""
    settings = EventsConfig(**{"max_rejects": 1.0, **config})
    rules, found = cleaning_rules(settings), Read()
    for part in _numbered(plan_reads(settings).slices):
        layout = layout_of(settings, part.format)
        for batch in read_slice(part, layout):
            table, rejects = clean(batch, rules)
            assert table.num_rows + len(rejects.lines) == batch.rows + len(batch.rejects.lines)
            found.events += events_in(table)
            found.spans += _spans(batch)
            found.rejects += [
                (part.name, line, reason, raw)
                for line, reason, raw in zip(
                    rejects.lines.tolist(), rejects.reasons, rejects.raw.to_pylist(), strict=True
                )
            ]
    found.rejects.sort(key=lambda one: one[:2])
    return found


def events_in(table: pa.Table) -> list[Event]:
    """Rows of a table of events."""
    columns = [table[name].to_pylist() for name in ("user", "item", "time", "weight")]
    return list(zip(*columns, strict=True))


def _numbered(slices: list[FileSlice]) -> Iterator[FileSlice]:
    """As the stage does by tasks."""
    first = 1
    for part in slices:
        first = 1 if part.start <= 0 else first
        yield replace(part, first_line=first) if FORMATS[part.format].has_lines else part
        if not part.ends_file and FORMATS[part.format].has_lines:
            first += text_lines.count_lines(part.url, part.start, part.end)


def _spans(batch: ParsedBatch) -> Iterator[tuple[int, int]]:
    bad = batch.rejects
    good = batch.raw(np.arange(batch.rows)).to_pylist()
    for lines, raws in ((batch.lines, good), (bad.lines, bad.raw.to_pylist())):
        for line, raw in zip(lines.tolist(), raws, strict=True):
            yield line, raw.count(b"\n") + 1
