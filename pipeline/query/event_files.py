"""Files of events of users or items who are to be folded in, read as the log of a run was.

Columns, parsing and rules are those of the run's section `events`. Memory grows with the file.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from embedmill.pipeline.config import EventsConfig
from embedmill.pipeline.errors import InputError
from embedmill.pipeline.prepare.parse.clean import clean, cleaning_rules
from embedmill.pipeline.prepare.parse.rejects import RejectCollector
from embedmill.pipeline.prepare.readers.file_formats import format_of, read_slice
from embedmill.pipeline.prepare.readers.read_plan import layout_of, plan_reads
from embedmill.pipeline.prepare.rules.merge import merge_events
from embedmill.pipeline.prepare.rules.row_rules import RowRules
from embedmill.schemas.events import EVENTS

__all__ = ["read_event_file"]


def read_event_file(events: EventsConfig, source: str | pa.Table) -> tuple[pa.Table, Counter[str]]:
    """The events of a file, merged as those of the log were.

    `max_user_events` and `half_life_days` do not apply: no event is too many, or old, here. Weights
    and types do.

    Args:
        events: the run's section.
        source: path or URL of the file, or its rows.

    Returns:
        the events (schema EVENTS), and counts: `rows_in`, `rejected`, `rejected.REASON`, what each
        rule has dropped, `merged`, `events`.

    Raises:
        InputError: there is no such file, it has no rows, or it lacks a column.
    """
    with _path_of(source) as url:
        config = _section(events, url)
        plan = plan_reads(config)
        rules, row_rules = cleaning_rules(config), RowRules(config)
        collector, tables = RejectCollector(0), [EVENTS.empty_table()]
        for part in plan.slices:
            for batch in read_slice(part, layout_of(config, part.format)):
                collector.counts["rows_in"] += batch.rows + len(batch.rejects.lines)
                table, rejects = clean(row_rules.filter_batch(batch), rules)
                collector.add(part.name, rejects)
                tables.append(row_rules.apply_weight_rules(table))
    counts = collector.counts + row_rules.counts
    if not counts["rows_in"]:
        raise InputError("has no rows", where=url)
    merged, merge_counts = merge_events(pa.concat_tables(tables), config)
    counts.update(merge_counts)
    return merged, counts


@contextmanager
def _path_of(source: str | pa.Table) -> Iterator[str]:
    """A path of the file, or of rows in a temporary one."""
    if isinstance(source, str):
        yield source
        return
    with tempfile.NamedTemporaryFile(suffix=".parquet") as file:
        pq.write_table(source, file)
        file.flush()
        yield file.name


def _section(events: EventsConfig, url: str) -> EventsConfig:
    """The section that reads one file: in its own format, where its name says which."""
    signals = events.signals.model_copy(
        update={"max_user_events": 0, "max_user_events_per_day": 0, "half_life_days": 0.0}
    )
    changed: dict[str, Any] = {"paths": (url,), "items": None, "signals": signals, "split": ""}
    try:
        format_of("auto", url)
    except InputError:
        return events.model_copy(update=changed)
    return events.model_copy(update={**changed, "format": "auto"})
