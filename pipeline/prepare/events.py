"""Stage `events`: raw logs to clean, typed, deduplicated events.

The log is read once. Tasks parse parts of the raw files, write the rejects, and apply the rules
on single rows. The events are shuffled by a hash of their user into `run.partitions` buckets; one
task sorts each bucket, applies the rules on whole users, merges duplicates, and writes its file.
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
from embedmill.pipeline.prepare.engine.task_report import run_tasks, task_report
from embedmill.pipeline.prepare.parse.clean import CleaningRules, clean, cleaning_rules
from embedmill.pipeline.prepare.parse.rejects import RejectCollector
from embedmill.pipeline.prepare.parse.times import day_bounds, iso_microseconds
from embedmill.pipeline.prepare.readers import read_plan
from embedmill.pipeline.prepare.readers.file_formats import read_slice
from embedmill.pipeline.prepare.readers.file_slice import FileSlice, read_tasks, slices_table
from embedmill.pipeline.prepare.readers.hive_folders import folder_day
from embedmill.pipeline.prepare.readers.layout import Layout
from embedmill.pipeline.prepare.readers.line_numbers import with_line_numbers
from embedmill.pipeline.prepare.rules.forgotten import drop_forgotten
from embedmill.pipeline.prepare.rules.merge import merge_events
from embedmill.pipeline.prepare.rules.row_rules import RowRules, active_rules
from embedmill.pipeline.prepare.shuffle_rows import (
    BUCKETED_EVENTS,
    SHUFFLE_DDL,
    event_rows,
    last_time_rows,
    report_row,
    separate,
    shuffle_columns,
)
from embedmill.pipeline.store.artifact_writer import Writer
from embedmill.pipeline.store.forgotten_ids import ForgottenIds, read_forgotten
from embedmill.pipeline.store.parquet import write_parquet
from embedmill.pipeline.store.run import Run
from embedmill.pipeline.store.storage import Storage
from embedmill.schemas.events import (
    DATA,
    DAYS,
    FORGOTTEN,
    REASONS,
    REJECTED,
    RULES,
    too_many_rejects,
)

__all__ = ["build", "source_stamps"]

_SECOND = 1_000_000


@dataclass(frozen=True)
class _Task:
    """What every task of the stage needs; it is sent to other processes."""

    storage: Storage
    layouts: Mapping[str, Layout]
    rules: CleaningRules
    partitions: int
    backpressure: Backpressure
    forgotten: ForgottenIds

    @property
    def needs_last_time(self) -> bool:
        """Whether weights depend on the time of the log's last event."""
        signals_config = self.rules.config.signals
        return bool(signals_config.half_life_days) and not signals_config.decay_until


def source_stamps(run: Run) -> Mapping[str, Any]:
    """Stamps of the raw files, for the fingerprint."""
    return read_plan.source_stamps(run.config.events)


def build(
    session: SparkSession, run: Run, out: Writer, progress: Progress, *, strict: bool = True
) -> None:
    """Write events/: events, rejects, days if the log has times, and item metadata if the config
    names any.

    Args:
        session: the engine's session.
        run: the run.
        out: writer of the `events` artifact.
        progress: receives the number of rows read.
        strict: false when the log is only profiled: then neither too many bad lines nor a log
            without a single event left is an error.

    Raises:
        InputError: a path names nothing, a column is not there, the log has no rows, or the
            rules leave none.
        RejectsError: more bad lines than `events.max_rejects`.
    """
    config = run.config.events
    plan = read_plan.plan_reads(config, out.sources)
    if not plan.slices:
        raise InputError("the log is empty", where=", ".join(config.paths))
    layouts = {kind: read_plan.layout_of(config, kind) for kind in {s.format for s in plan.slices}}
    forgotten = read_forgotten(run.config.run.root)
    rules, partitions = cleaning_rules(config), run.config.run.partitions
    task = _Task(out.storage, layouts, rules, partitions, LOCAL, forgotten)
    slices = with_line_numbers(session, plan.slices)
    size = sum(part.bytes for part in slices)
    readers = distribute(
        session, slices_table(slices), "task", task_count(size, slices[-1].task + 1)
    )
    parsed = map_batches(readers, partial(_parse, task), SHUFFLE_DDL, reads=True)
    columns = shuffle_columns(task.partitions, with_hash=bool(config.signals.max_user_events))
    shuffled = parsed.selectExpr(*columns)
    buckets = shuffled.repartition(task_count(size, task.partitions), "bucket")
    with report_progress(progress, "rows"):
        done = run_tasks(buckets, partial(_merge, task))
    counters = _stage_counters(done.counts, config)
    progress.update(counters["rows_in"], counters["rows_in"], "rows")
    _check_counters(counters, config.max_rejects if strict else None, ", ".join(config.paths))
    out.add(done.files)
    if config.time:
        out.write_json(DAYS, histograms.day_histogram(done.counts))
    if config.items:
        counters |= items.write_item_metadata(config.items, out, forgotten)
    measured = {"files": plan.files, "files_outside": plan.outside, "read_bytes": size}
    out.commit(counters, measured, engine_versions(session))


def _stage_counters(counts: Counter[str], config: EventsConfig) -> dict[str, int]:
    """The counters of the manifest, of those that the tasks have summed."""
    counters = {name: counts[name] for name in ("rows_in", "events", "merged", "rejected")}
    for name in active_rules(config):
        counters[name] = counts[name]
    for name in ("bot_users", "capped_users", FORGOTTEN):
        if counts[name]:
            counters[name] = counts[name]
    for reason in REASONS:
        if counts[f"rejected.{reason}"]:
            counters[f"rejected.{reason}"] = counts[f"rejected.{reason}"]
    if "late" in counts:  # where files lie in folders of days
        counters["late"] = counts["late"]
    if counts["day_numbers"]:
        counters["day_numbers"] = counts["day_numbers"]
    if config.explode:
        counters["empty_lists"] = counts["empty_lists"]
    return counters | {"rejects_kept": counts["rejects_kept"]}


def _check_counters(counters: Mapping[str, int], max_rejects: float | None, where: str) -> None:
    """Raise unless the log has rows, few enough of them are bad, and events are left.

    If `max_rejects` is None, only the first of these is checked.
    """
    if not counters["rows_in"]:
        raise InputError("the log has no rows", where=where)
    if max_rejects is None:
        return
    too_many = too_many_rejects(counters, max_rejects)
    if not too_many:
        _check_events_left(counters, where)
        return
    by_reason = [(counters[f"rejected.{r}"], r) for r in REASONS if f"rejected.{r}" in counters]
    commonest = sorted(by_reason, key=lambda pair: (-pair[0], pair[1]))[:3]
    listed = ", ".join(f"{count:,} '{reason}' ({REASONS[reason]})" for count, reason in commonest)
    raise RejectsError(
        f"{too_many}; commonest: {listed}",
        where=where,
        todo="See them in rejects/ of the run's events folder",
    )


def _check_events_left(counters: Mapping[str, int], where: str) -> None:
    """Raise if the rules have dropped every event."""
    if counters["events"]:
        return
    rules = {**RULES, FORGOTTEN: "`embedmill forget`"}
    dropped = [(counters[name], key) for name, key in rules.items() if counters.get(name)]
    listed = ", ".join(f"{count:,} by {key}" for count, key in dropped)
    raise InputError(
        f"no event is left of {counters['rows_in']:,} rows: dropped were {listed}",
        where=where,
        todo="Check these rules against the log",
    )


def _parse(task: _Task, batches: Batches) -> Batches:
    """Rows of the shuffle from file slices: events, a report for each read task, last times."""
    row_rules, last_time = RowRules(task.rules.config), None
    rows = [row for batch in batches for row in batch.to_pylist()]
    for read_task in read_tasks(rows):
        rejects = RejectCollector(task.rules.config.keep_rejects)
        for part in read_task.slices:
            parsed = task.backpressure.limit_readers(_parse_slice(task, part, row_rules, rejects))
            for events in task.backpressure.throttle(parsed):
                if task.needs_last_time:
                    last_time = _later(last_time, events)
                yield events
        rejected, entry = rejects.table(), None
        if rejected is not None:
            path = REJECTED.path(read_task.number)
            entry = write_parquet(task.storage, "events", path, rejected)
        rejects.counts.update(row_rules.counts)
        report = task_report(entry, rejects.counts)
        yield report_row(report, read_task.number % task.partitions)
        row_rules.counts.clear()
    if last_time is not None:
        yield last_time_rows(last_time, task.partitions)


def _parse_slice(
    task: _Task, part: FileSlice, row_rules: RowRules, collector: RejectCollector
) -> Batches:
    config = task.rules.config
    day = folder_day(json.loads(part.folders), config.date_folders) if config.time else ""
    for batch in read_slice(part, task.layouts[part.format]):
        collector.counts["rows_in"] += batch.rows + len(batch.rejects.lines)
        collector.counts["empty_lists"] += batch.empty_lists
        with _naming_file(part.name):
            known = drop_forgotten(batch, task.rules.config, task.forgotten, collector.counts)
            table, rejects = clean(row_rules.filter_batch(known), task.rules)
        if day:
            collector.counts["late"] += _outside(table["time"], day_bounds(day, config.time_zone))
        if config.time_unit in ("auto", "seconds"):
            collector.counts["day_numbers"] += _day_numbers(table["time"])
        collector.add(part.name, rejects)
        yield from event_rows(row_rules.apply_weight_rules(table))


@contextmanager
def _naming_file(file: str) -> Iterator[None]:
    """Add the file's name to an InputError raised inside the block that names none."""
    try:
        yield
    except InputError as error:
        raise InputError(error.what, where=error.where or file, todo=error.todo) from None


def _outside(time: pa.ChunkedArray, bounds: tuple[int, int]) -> int:
    """The number of times outside of [bounds[0], bounds[1]), the day of the folder of a file."""
    within = pc.and_(pc.greater_equal(time, bounds[0]), pc.less(time, bounds[1]))
    return len(time) - int(pc.sum(within).as_py() or 0)


def _day_numbers(time: pa.ChunkedArray) -> int:
    """How many times are seconds since 1970 whose number reads as a day: 20260131."""
    first, last = 19000101, 21001231
    low = pc.min(time).as_py()
    if low is None or low > last * _SECOND:
        return 0
    near = time.to_numpy()
    near = near[(near >= first * _SECOND) & (near <= last * _SECOND) & (near % _SECOND == 0)]
    month, day = near // _SECOND // 100 % 100, near // _SECOND % 100
    return int(((month >= 1) & (month <= 12) & (day >= 1) & (day <= 31)).sum())


def _later(last_time: int | None, events: pa.RecordBatch) -> int | None:
    """The later of `last_time` and the latest time of a batch; None while there is neither."""
    latest = pc.max(events.column("time")).as_py()
    return last_time if latest is None else latest if last_time is None else max(last_time, latest)


def _merge(task: _Task, batches: Batches) -> Batches:
    """Merge and write each bucket of the task; hand on the reports among the rows."""
    buffer = SpillBuffer(BUCKETED_EVENTS)
    last_times: list[int] = []
    for batch in batches:
        rows = separate(batch)
        yield from rows.reports
        last_times += rows.last_times
        buffer.append(rows.events)
    if task.needs_last_time:
        reference_time = max(last_times, default=0)
    else:
        reference_time = _decay_until(task.rules.config)
    yield from buffer.drain_groups("bucket", partial(_merge_bucket, task, reference_time))


def _decay_until(config: EventsConfig) -> int:
    """The moment at which an event's age is 0, as the config gives it; 0 if it does not."""
    text = config.signals.decay_until
    return iso_microseconds(text, "events.signals.decay_until") if text else 0


def _merge_bucket(task: _Task, reference_time: int, bucket: int, rows: pa.Table) -> Batches:
    """Write the file of a bucket."""
    events, counts = merge_events(rows, task.rules.config, reference_time)
    path = DATA.path(bucket)
    entry = write_parquet(task.storage, "events", path, events)
    yield task_report(entry, {**counts, **histograms.day_counters(events["time"])})
