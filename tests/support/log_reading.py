"""A log read without an engine: what each split gives, and every line accounted for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa

from embedmill.pipeline.config import EventsConfig
from embedmill.pipeline.prepare.parse.clean import clean, rules
from embedmill.pipeline.prepare.readers import sources, text
from embedmill.pipeline.prepare.readers.parsed_batch import Block, Split

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
    """All splits of a log, one after the other."""
    settings = EventsConfig(**{"max_rejects": 1.0, **config})
    rule, found = rules(settings), Read()
    for split in _numbered(sources.plan(settings).splits):
        shape = sources.layout(settings, split.format)
        for block in sources.open_split(split, shape):
            table, rejects = clean(block, rule)
            assert table.num_rows + len(rejects.lines) == block.rows + len(block.rejects.lines)
            found.events += events_in(table)
            found.spans += _spans(block)
            found.rejects += [
                (split.name, line, reason, raw)
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


def _numbered(splits: list[Split]) -> Iterator[Split]:
    """As the stage does by tasks."""
    first = 1
    for split in splits:
        first = 1 if split.start <= 0 else first
        yield replace(split, first=first) if split.format != "parquet" else split
        if not split.last and split.format != "parquet":
            first += text.count_lines(split.url, split.start, split.end)


def _spans(block: Block) -> Iterator[tuple[int, int]]:
    bad = block.rejects
    good = block.raw(np.arange(block.rows)).to_pylist()
    for lines, raws in ((block.lines, good), (bad.lines, bad.raw.to_pylist())):
        for line, raw in zip(lines.tolist(), raws, strict=True):
            yield line, raw.count(b"\n") + 1
