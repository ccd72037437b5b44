"""Stage `events`: raw logs to clean, typed, deduplicated events.

One pass: tasks parse splits and write what they reject; events are shuffled by a hash of
their user into `run.partitions` buckets, each of which one task sorts, merges and writes.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import SparkSession

from pipeline.artifact import Writer
from pipeline.errors import InputError, RejectsError
from pipeline.log import Progress
from pipeline.parquet import write_parquet
from pipeline.prepare import items, sources
from pipeline.prepare.block import MAX_RAW, Layout, Rejects, Split
from pipeline.prepare.clean import REASONS, Rules, clean, rules
from pipeline.prepare.duplicates import settle
from pipeline.prepare.engine import (
    REPORT,
    REPORT_ARROW,
    Batches,
    by_key,
    gather,
    mapped,
    report,
    software,
    spread,
    tasks_for,
    together,
    turn,
    watched,
)
from pipeline.run import Run
from pipeline.storage import Storage
from schemas.tables import EVENTS, REJECTS

__all__ = ["build", "stamps"]

_ROWS = 1 << 16  # of a batch that goes into the shuffle
_SHUFFLED = "user string, item string, time long, weight double, split string, note string"
_NOTED = pa.schema([pa.field(f.name, f.type) for f in EVENTS] + [pa.field("note", pa.string())])
_BUCKETED = _NOTED.append(pa.field("bucket", pa.int32()))


@dataclass(frozen=True)
class _Task:
    """What a task needs to know; it is sent to other processes."""

    storage: Storage
    layout: Layout
    rules: Rules
    partitions: int


def stamps(run: Run) -> Mapping[str, Any]:
    """Stamps of the raw files, for the fingerprint."""
    return sources.stamp(run.config.events)


def build(session: SparkSession, run: Run, out: Writer, progress: Progress) -> None:
    """Write events/: data, rejects and, where the config names metadata, items.parquet.

    Raises:
        InputError: a path names nothing, a column is not there, or the log has no rows.
        RejectsError: more bad lines than `events.max_rejects`.
    """
    config = run.config.events
    task = _Task(out.storage, sources.layout(config), rules(config), run.config.run.partitions)
    splits = sources.plan(config)
    if not splits:
        raise InputError("the log is empty", where=", ".join(config.paths))
    size = sum(split.bytes for split in splits)
    readers = spread(session, sources.task_table(splits), "number", tasks_for(size, len(splits)))
    parsed = mapped(readers, partial(_parse, task), _SHUFFLED, reads=True)
    buckets = parsed.selectExpr(
        "*", f"cast(pmod(xxhash64(user), {task.partitions}) as int) as bucket"
    ).repartition(tasks_for(size, task.partitions), "bucket")
    with watched(progress, "rows"):
        done = gather(mapped(buckets, partial(_settle, task), REPORT))
    counters = _counters(done.counts)
    progress.update(counters["rows_in"], counters["rows_in"], "rows")
    _check(counters, config.max_rejects, ", ".join(config.paths))
    out.add(done.files)
    if config.items:
        counters |= items.write(config.items, out)
    out.commit(counters, software=software(session))


def _counters(counts: Counter[str]) -> dict[str, int]:
    found = {name: counts[name] for name in ("rows_in", "events", "merged", "rejected")}
    for reason in REASONS:
        if counts[f"rejected.{reason}"]:
            found[f"rejected.{reason}"] = counts[f"rejected.{reason}"]
    return found | {"rejects_kept": counts["rejected"]}


def _check(counters: Mapping[str, int], most: float, where: str) -> None:
    """Raise unless there are rows and few enough of them are bad."""
    rows, bad = counters["rows_in"], counters["rejected"]
    if not rows:
        raise InputError("the log has no rows", where=where)
    if bad <= most * rows and bad < rows:
        return
    found = [(counters[f"rejected.{r}"], r) for r in REASONS if f"rejected.{r}" in counters]
    worst = sorted(found, key=lambda f: (-f[0], f[1]))[:3]
    said = ", ".join(f"{count:,} '{reason}' ({REASONS[reason]})" for count, reason in worst)
    raise RejectsError(
        f"{bad:,} of {rows:,} lines are bad, more than events.max_rejects = {most:g} allows; "
        f"commonest: {said}",
        where=where,
        todo="See them in rejects/ of the run's events folder",
    )


def _parse(task: _Task, batches: Batches) -> Batches:
    """Events of the splits; at the end of each, a row whose `note` reports its rejects."""
    for batch in batches:
        for row in batch.to_pylist():
            yield from _parse_split(task, Split(**{n: row[n] for n in sources.SPLITS.names}))


def _parse_split(task: _Task, split: Split) -> Batches:
    bad: list[pa.Table] = []
    counts: Counter[str] = Counter()
    for block in sources.open_split(split, task.layout):
        table, rejects = clean(block, task.rules)
        counts["rows_in"] += table.num_rows + len(rejects.lines)
        if rejects.lines:
            bad.append(_rejects_table(split.name, rejects))
        yield from _for_shuffle(table)
    entry = None
    if bad:
        rejected = pa.concat_tables(bad).sort_by("line").combine_chunks()
        counts["rejected"] = rejected.num_rows
        for found in pc.value_counts(rejected["reason"]).to_pylist():
            counts[f"rejected.{found['values']}"] = found["counts"]
        path = f"rejects/part-{split.number:05d}.parquet"
        entry = write_parquet(task.storage, "events", path, rejected)
    yield _note(report(entry, counts))


def _rejects_table(name: str, rejects: Rejects) -> pa.Table:
    columns = [
        pa.array([name] * len(rejects.lines), pa.string()),
        pa.array(rejects.lines, pa.int64()),
        pa.array(rejects.reasons, pa.string()),
        pa.array([raw[:MAX_RAW] for raw in rejects.raw], pa.binary()),
    ]
    return pa.Table.from_arrays(columns, schema=REJECTS)


def _for_shuffle(table: pa.Table) -> Batches:
    noted = table.append_column("note", pa.nulls(table.num_rows, pa.string())).cast(_NOTED)
    yield from noted.to_batches(max_chunksize=_ROWS)


def _note(row: pa.RecordBatch) -> pa.RecordBatch:
    text = json.dumps(row.to_pylist()[0])
    return pa.RecordBatch.from_pylist([{"note": text}], schema=_NOTED)


def _settle(task: _Task, batches: Batches) -> Batches:
    """Each bucket of the task sorted, merged and written; notes are passed on."""
    table = together(batches, _BUCKETED)
    noted = table["note"].is_valid()
    for text in table["note"].drop_null().to_pylist():
        yield pa.RecordBatch.from_pylist([json.loads(text)], schema=REPORT_ARROW)
    table = table.filter(pc.invert(noted)).drop_columns(["note"])
    with turn():
        reports = [_write(task, bucket, rows) for bucket, rows in by_key(table, "bucket")]
    yield from reports


def _write(task: _Task, bucket: int, rows: pa.Table) -> pa.RecordBatch:
    settled = settle(rows, task.rules.config)
    path = f"data/part-{bucket:05d}.parquet"
    entry = write_parquet(task.storage, "events", path, settled)
    merged = rows.num_rows - settled.num_rows
    return report(entry, {"events": settled.num_rows, "merged": merged})
