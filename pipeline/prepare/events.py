"""Stage `events`: raw logs to clean, typed, deduplicated events.

One pass: tasks parse splits, write what they reject and drop what the rules of single rows
drop; events are shuffled by a hash of their user into `run.partitions` buckets, each of which
one task sorts, settles by the rules of whole users, merges and writes.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import SparkSession

from embedmill.pipeline.config import EventsConfig
from embedmill.pipeline.errors import InputError, RejectsError
from embedmill.pipeline.log import Progress
from embedmill.pipeline.prepare import histograms, items
from embedmill.pipeline.prepare.engine.backpressure import LOCAL, Backpressure
from embedmill.pipeline.prepare.engine.frames import (
    Batches,
    distribute,
    engine_versions,
    map_batches,
    task_count,
)
from embedmill.pipeline.prepare.engine.spill_buffer import SpillBuffer
from embedmill.pipeline.prepare.engine.task_monitor import report_progress
from embedmill.pipeline.prepare.engine.task_report import (
    REPORT_SCHEMA,
    run_tasks,
    task_report,
)
from embedmill.pipeline.prepare.parse.clean import CleaningRules, clean, cleaning_rules
from embedmill.pipeline.prepare.parse.rejects import RejectCollector
from embedmill.pipeline.prepare.parse.times import day_bounds, iso_microseconds
from embedmill.pipeline.prepare.readers.file_formats import read_slice
from embedmill.pipeline.prepare.readers.file_slice import FileSlice, read_tasks, slices_table
from embedmill.pipeline.prepare.readers.hive_folders import folder_day
from embedmill.pipeline.prepare.readers.layout import Layout
from embedmill.pipeline.prepare.readers.line_numbers import with_line_numbers
from embedmill.pipeline.prepare.readers.read_plan import layout_of, plan_reads, source_stamps
from embedmill.pipeline.prepare.rules import signals
from embedmill.pipeline.prepare.rules.merge import settle
from embedmill.pipeline.store.artifact import Writer
from embedmill.pipeline.store.parquet import write_parquet
from embedmill.pipeline.store.run import Run
from embedmill.pipeline.store.storage import Storage
from embedmill.schemas.events import EVENTS, REASONS, RULES, too_many_rejects

__all__ = ["build", "stamps"]

_ROWS = 1 << 16  # of a batch that goes into the shuffle
_SHUFFLED = "user string, item string, time long, weight double, split string, note string"
_NOTED = pa.schema([pa.field(f.name, f.type) for f in EVENTS] + [pa.field("note", pa.string())])
_BUCKETED = _NOTED.append(pa.field("bucket", pa.int32())).append(pa.field("hash", pa.int64()))


@dataclass(frozen=True)
class _Task:
    """What a task needs to know; it is sent to other processes."""

    storage: Storage
    layouts: Mapping[str, Layout]
    rules: CleaningRules
    partitions: int
    backpressure: Backpressure

    @property
    def seeks_last(self) -> bool:
        """Whether weights depend on the time of the log's last event."""
        found = self.rules.config.signals
        return bool(found.half_life_days) and not found.decay_until


def stamps(run: Run) -> Mapping[str, Any]:
    """Stamps of the raw files, for the fingerprint."""
    return source_stamps(run.config.events)


def build(
    session: SparkSession, run: Run, out: Writer, progress: Progress, *, strict: bool = True
) -> None:
    """Write events/: data, rejects, days.json where the log has times, and items.parquet where
    the config names metadata.

    Args:
        session: the engine.
        run: the run.
        out: writer of the `events` artifact.
        progress: told of rows.
        strict: false for a look at the log: bad lines never fail it, and no event may be left.

    Raises:
        InputError: a path names nothing, a column is not there, the log has no rows, or the
            rules leave none.
        RejectsError: more bad lines than `events.max_rejects`.
    """
    config = run.config.events
    plan = plan_reads(config)
    if not plan.slices:
        raise InputError("the log is empty", where=", ".join(config.paths))
    layouts = {kind: layout_of(config, kind) for kind in {s.format for s in plan.slices}}
    task = _Task(out.storage, layouts, cleaning_rules(config), run.config.run.partitions, LOCAL)
    slices = with_line_numbers(session, plan.slices)
    size = sum(part.bytes for part in slices)
    readers = distribute(
        session, slices_table(slices), "task", task_count(size, slices[-1].task + 1)
    )
    parsed = map_batches(readers, partial(_parse, task), _SHUFFLED, reads=True)
    shuffled = parsed.selectExpr("*", *_placed(task))
    buckets = shuffled.repartition(task_count(size, task.partitions), "bucket")
    with report_progress(progress, "rows"):
        done = run_tasks(buckets, partial(_settle, task))
    counters = _counters(done.counts, config)
    progress.update(counters["rows_in"], counters["rows_in"], "rows")
    _check(counters, config.max_rejects if strict else None, ", ".join(config.paths))
    out.add(done.files)
    if config.time:
        out.write_json("days.json", histograms.by_day(done.counts))
    if config.items:
        counters |= items.write(config.items, out)
    found = {"files": plan.files, "files_outside": plan.outside, "read_bytes": size}
    out.commit(counters, found, engine_versions(session))


def _placed(task: _Task) -> list[str]:
    """The column `bucket`, by user, and where users have a cap a hash of user and item."""
    bucket = f"pmod(xxhash64(user), {task.partitions})"
    if task.seeks_last:  # a row without a user may say where it goes (see `_lasts`)
        bucket = f"if(user is null, cast(coalesce(weight, 0) as bigint), {bucket})"
    capped = task.rules.config.signals.max_user_events
    return [f"cast({bucket} as int) as bucket", *(["xxhash64(user, item) as hash"] * bool(capped))]


def _counters(counts: Counter[str], config: EventsConfig) -> dict[str, int]:
    found = {name: counts[name] for name in ("rows_in", "events", "merged", "rejected")}
    for name in signals.asked(config):
        found[name] = counts[name]
    for name in ("bot_users", "capped_users"):
        if counts[name]:
            found[name] = counts[name]
    for reason in REASONS:
        if counts[f"rejected.{reason}"]:
            found[f"rejected.{reason}"] = counts[f"rejected.{reason}"]
    if "late" in counts:  # where files lie in folders of days
        found["late"] = counts["late"]
    if config.explode:
        found["empty_lists"] = counts["empty_lists"]
    return found | {"rejects_kept": counts["rejects_kept"]}


def _check(counters: Mapping[str, int], most: float | None, where: str) -> None:
    """Raise unless there are rows, few enough of them are bad, and events are left.

    Without `most` rows are enough.
    """
    if not counters["rows_in"]:
        raise InputError("the log has no rows", where=where)
    if most is None:
        return
    bad = too_many_rejects(counters, most)
    if not bad:
        _check_left(counters, where)
        return
    found = [(counters[f"rejected.{r}"], r) for r in REASONS if f"rejected.{r}" in counters]
    worst = sorted(found, key=lambda f: (-f[0], f[1]))[:3]
    said = ", ".join(f"{count:,} '{reason}' ({REASONS[reason]})" for count, reason in worst)
    raise RejectsError(
        f"{bad}; commonest: {said}",
        where=where,
        todo="See them in rejects/ of the run's events folder",
    )


def _check_left(counters: Mapping[str, int], where: str) -> None:
    """Raise unless the rules have left an event."""
    if counters["events"]:
        return
    dropped = [(counters[name], key) for name, key in RULES.items() if counters.get(name)]
    said = ", ".join(f"{count:,} by {key}" for count, key in dropped)
    raise InputError(
        f"no event is left of {counters['rows_in']:,} rows: dropped were {said}",
        where=where,
        todo="Check these rules against the log",
    )


def _parse(task: _Task, batches: Batches) -> Batches:
    """Events of the slices; at the end of a read task, a row whose `note` reports its rejects."""
    selection, last = signals.Selection(task.rules.config), None
    rows = [row for batch in batches for row in batch.to_pylist()]
    for read_task in read_tasks(rows):
        collector = RejectCollector(task.rules.config.keep_rejects)
        for part in read_task.slices:
            parsed = _parse_slice(task, part, selection, collector)
            limited = task.backpressure.limit_readers(parsed)
            for events in task.backpressure.throttle(limited):
                if task.seeks_last:
                    last = _later(last, events)
                yield events
        rejected, entry = collector.table(), None
        if rejected is not None:
            path = f"rejects/part-{read_task.number:05d}.parquet"
            entry = write_parquet(task.storage, "events", path, rejected)
        collector.counts.update(selection.counts)
        yield _note(task_report(entry, collector.counts))
        selection.counts.clear()
    if last is not None:
        yield _lasts(last, task.partitions)


def _parse_slice(
    task: _Task, part: FileSlice, selection: signals.Selection, collector: RejectCollector
) -> Batches:
    config = task.rules.config
    day = folder_day(json.loads(part.folders), config.date_folders) if config.time else ""
    for batch in read_slice(part, task.layouts[part.format]):
        collector.counts["rows_in"] += batch.rows + len(batch.rejects.lines)
        collector.counts["empty_lists"] += batch.empty_lists
        with _named(part.name):
            table, rejects = clean(selection.of(batch), task.rules)
        if day:
            collector.counts["late"] += _outside(table["time"], day_bounds(day, config.time_zone))
        collector.add(part.name, rejects)
        yield from _for_shuffle(selection.weighty(table))


@contextmanager
def _named(file: str) -> Iterator[None]:
    """Say which file an InputError inside the block is about."""
    try:
        yield
    except InputError as error:
        raise InputError(error.what, where=error.where or file, todo=error.todo) from None


def _outside(time: pa.ChunkedArray, bounds: tuple[int, int]) -> int:
    """How many times are not of the day of their folder."""
    within = pc.and_(pc.greater_equal(time, bounds[0]), pc.less(time, bounds[1]))
    return len(time) - int(pc.sum(within).as_py() or 0)


def _later(last: int | None, events: pa.RecordBatch) -> int | None:
    """The later of `last` and the last time of a batch."""
    found = pc.max(events.column("time")).as_py()
    return last if found is None else found if last is None else max(last, found)


def _lasts(last: int, partitions: int) -> pa.RecordBatch:
    """A row for each bucket, its number as weight, that brings it the task's last time."""
    columns = {
        "time": pa.array([last] * partitions, pa.int64()),
        "weight": pa.array(range(partitions), pa.float64()),
    }
    nothing = pa.nulls(partitions, pa.string())
    arrays = [columns.get(field.name, nothing) for field in _NOTED]
    return pa.RecordBatch.from_arrays(arrays, schema=_NOTED)


def _for_shuffle(table: pa.Table) -> Batches:
    noted = table.append_column("note", pa.nulls(table.num_rows, pa.string())).cast(_NOTED)
    yield from noted.to_batches(max_chunksize=_ROWS)


def _note(row: pa.RecordBatch) -> pa.RecordBatch:
    text = json.dumps(row.to_pylist()[0])
    return pa.RecordBatch.from_pylist([{"note": text}], schema=_NOTED)


def _settle(task: _Task, batches: Batches) -> Batches:
    """Each bucket of the task settled and written; notes are passed on."""
    held = SpillBuffer(_BUCKETED.remove(_BUCKETED.get_field_index("note")))
    lasts: list[int] = []
    for batch in batches:
        if batch.column("note").null_count < batch.num_rows:
            yield from _passed(batch)
            batch = batch.filter(pc.is_null(batch.column("note")))
        batch = batch.drop_columns(["note"])
        if task.seeks_last:
            last = batch.filter(pc.is_null(batch.column("user")))
            lasts += last.column("time").drop_null().to_pylist()
            batch = batch.filter(pc.is_valid(batch.column("user")))
        held.append(batch)
    until = max(lasts, default=0) if task.seeks_last else _until(task.rules.config)
    yield from held.drain_groups("bucket", partial(_write, task, until))


def _passed(batch: pa.RecordBatch) -> Batches:
    """The reports among the rows."""
    for text in batch.column("note").drop_null().to_pylist():
        yield pa.RecordBatch.from_pylist([json.loads(text)], schema=REPORT_SCHEMA)


def _until(config: EventsConfig) -> int:
    """The moment at which the config says that age is 0; 0 where it does not."""
    text = config.signals.decay_until
    return iso_microseconds(text, "events.signals.decay_until") if text else 0


def _write(task: _Task, until: int, bucket: int, rows: pa.Table) -> Batches:
    """The file of a bucket."""
    settled, counts = settle(rows, task.rules.config, until)
    path = f"data/part-{bucket:05d}.parquet"
    written = write_parquet(task.storage, "events", path, settled)
    yield task_report(written, {**counts, **histograms.days(settled["time"])})
