"""Stage `shards`: events with rows for ids, split, partitioned by user, sorted by a hash.

All events of a user meet in one task, which assigns their splits, checks for leakage, and writes
the files of its partitions.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame, SparkSession

from embedmill.pipeline.config import ShardsConfig
from embedmill.pipeline.errors import ContractError
from embedmill.pipeline.log import Progress
from embedmill.pipeline.prepare.engine.frames import Batches, collect, engine_versions, task_count
from embedmill.pipeline.prepare.engine.ordering import order_by
from embedmill.pipeline.prepare.engine.parquet_frame import read_parquet
from embedmill.pipeline.prepare.engine.spill_buffer import SpillBuffer
from embedmill.pipeline.prepare.engine.task_monitor import report_progress
from embedmill.pipeline.prepare.engine.task_report import run_tasks, task_report
from embedmill.pipeline.prepare.splits import assignment, session_pairs
from embedmill.pipeline.prepare.splits.boundaries import TimeRange, split_boundaries
from embedmill.pipeline.prepare.vocabulary.shared_rows import (
    is_shared,
    is_shared_sql,
    shared_row_sql,
    side_rows,
)
from embedmill.pipeline.store.artifact_writer import Writer
from embedmill.pipeline.store.parquet import write_parquet
from embedmill.pipeline.store.run import Run
from embedmill.pipeline.store.storage import Storage
from embedmill.pipeline.views.events import Events
from embedmill.pipeline.views.vocab import Vocab
from embedmill.schemas.events import EVENTS
from embedmill.schemas.shards import FILES, SHARD, SPLITS
from embedmill.schemas.vocab import SideRows, VocabSpec

__all__ = ["build"]

_COUNTS = (
    *SPLITS,
    "repeats_valid",
    "repeats_test",
    "cold_users_test",
    "users_without_train",
    "users_not_held_out",
    "shared_held_out",
)
_JOINED = pa.schema(
    [
        ("user_row", pa.int64()),
        ("item_row", pa.int64()),
        ("time", pa.int64()),
        ("weight", pa.float64()),
        ("split", pa.string()),
        ("hash", pa.int64()),
        ("partition", pa.int32()),
    ]
)
_ITEM = pa.schema([("item_row", pa.int64())])


@dataclass(frozen=True)
class _Task:
    storage: Storage
    boundaries: assignment.SplitBoundaries
    config: ShardsConfig
    spec: VocabSpec


def build(session: SparkSession, run: Run, out: Writer, progress: Progress) -> None:
    """Write shards/: train, valid and test with a file per partition each, and pairs if asked for.

    An event of a shared row is only used for training, because its user or item is not known. If
    the split would hold it out, it is dropped.

    Args:
        session: the engine's session.
        run: the run, whose stages `events` and `vocab` have finished.
        out: writer of the `shards` artifact.
        progress: receives the number of rows read.

    Raises:
        InputError: the split column has a value that the config does not name.
        ContractError: events are lost or leak between splits.
    """
    events, vocab = Events(run.artifact("events")), Vocab(run.artifact("vocab"))
    partitions = run.config.run.partitions
    spec = vocab.spec
    tasks = task_count(events.bytes, partitions)
    with report_progress(progress, "rows read"):
        # Read to find the boundaries; nothing collects these rows, so reading need not wait.
        unpaced = _with_rows(session, run, events, vocab, throttled=False)
        boundaries = split_boundaries(run.config.shards, unpaced, _time_range(events, vocab))
        boundaries = replace(boundaries, seed=run.config.run.seed)
        task = _Task(out.storage, boundaries, run.config.shards, spec)
        joined = _with_rows(session, run, events, vocab, throttled=True)
        shuffled = joined.repartition(tasks, "partition")
        done = run_tasks(shuffled, partial(_write, task))
    written = sum(done.counts[name] for name in SPLITS)
    joined_events = written + done.counts["shared_held_out"]
    if joined_events != vocab.artifact.counters["events_kept"]:
        raise ContractError(
            f"{joined_events:,} events found their rows, the vocabulary kept "
            f"{vocab.artifact.counters['events_kept']:,}",
            where=out.storage.root,
            todo="This is a bug; nothing was committed",
        )
    out.add(done.files)
    _add_empty_files(out, partitions)
    total = events.artifact.counters["events"]
    counters = {name: done.counts[name] for name in _COUNTS}
    counters |= {"events_in": total, "dropped": total - written}
    counters |= _cold_items(session, out, vocab.artifact.counters["items_live"], spec.items)
    counters |= _write_pairs(session, run, out, spec)
    progress.update(total, total, "events")
    read_bytes = events.bytes + sum(entry.bytes for entry in vocab.artifact.files())
    out.commit(counters, {"read_bytes": read_bytes}, engine_versions(session))


def _time_range(events: Events, vocab: Vocab) -> TimeRange | None:
    """The range of the times of the events kept; None if the log has no times."""
    days = events.days()
    if days is None:
        return None
    return TimeRange.of_days(days, vocab.artifact.counters["events_kept"])


def _with_rows(
    session: SparkSession, run: Run, events: Events, vocab: Vocab, *, throttled: bool
) -> DataFrame:
    """Events with the rows of their ids, their hash and their partition (schema _JOINED).

    An id without a live row gets a shared row by its hash; if there are none, the event is left
    out.
    """
    seed, partitions = run.config.run.seed, run.config.run.partitions
    nullable = pa.schema([pa.field(f.name, f.type) for f in EVENTS])
    storage, files = events.artifact.storage, events.files
    log = read_parquet(session, storage, files, nullable, throttled=throttled).selectExpr(
        "*", f"xxhash64(user, item, time, weight, cast({seed} as bigint)) as hash"
    )
    # Sail builds its hash table from the left side of a join, which should be the smaller one.
    for side in ("user", "item"):
        rows = _live_rows(session, vocab, f"{side}s")
        rows = rows.selectExpr(f"id as {side}", f"row as own_{side}")
        if side_rows(vocab.spec, side).shared:
            log = rows.join(log, side, "right")
            row = f"coalesce(own_{side}, cast({shared_row_sql(vocab.spec, side)} as bigint))"
        else:
            log, row = rows.join(log, side), f"own_{side}"
        log = log.selectExpr("*", f"{row} as {side}_row").drop(side, f"own_{side}")
    return log.selectExpr(
        *(name for name in _JOINED.names if name != "partition"),
        f"cast(user_row % {partitions} as int) as partition",
    )


def _live_rows(session: SparkSession, vocab: Vocab, side: str) -> DataFrame:
    schema = pa.schema([("row", pa.int64()), ("id", pa.string()), ("live", pa.bool_())])
    return read_parquet(session, vocab.artifact.storage, vocab.files(side), schema).where("live")


def _write(task: _Task, batches: Batches) -> Batches:
    buffer = SpillBuffer.from_batches(batches, _JOINED)
    yield from buffer.drain_groups("partition", partial(_write_partition, task))


def _write_partition(task: _Task, number: int, rows: pa.Table) -> Batches:
    """Write the three files of a partition."""
    events = assignment.UserHistories(
        user=rows["user_row"].to_numpy(),
        item=rows["item_row"].to_numpy(),
        time=rows["time"].fill_null(0).to_numpy(),
        hash=rows["hash"].to_numpy(),
        given=_given_codes(rows["split"], task.config),
    )
    codes = assignment.assign_splits(events, task.boundaries)
    assignment.check_leakage(task.boundaries.rule, events.user, events.time, codes)
    shared_user = is_shared(task.spec.users, events.user)
    shared = shared_user | is_shared(task.spec.items, events.item)
    codes[shared & (codes != assignment.TRAIN)] = assignment.DROPPED
    order = order_by(events.hash, events.user, events.item, events.time)
    for code, name in enumerate(SPLITS):
        table = _shard(rows.take(pa.array(order[codes[order] == code])))
        path = FILES[name].path(number)
        entry = write_parquet(task.storage, "shards", path, table)
        yield task_report(entry, {name: table.num_rows})
    dropped = int((codes == assignment.DROPPED).sum())
    own = assignment.UserHistories(*(getattr(events, f.name)[~shared_user] for f in fields(events)))
    counts = _user_counts(own, codes[~shared_user]) if len(own.user) else {}
    yield task_report(None, {"shared_held_out": dropped, **counts})


def _shard(rows: pa.Table) -> pa.Table:
    columns = [rows[name].cast(SHARD.field(name).type, safe=False) for name in SHARD.names]
    return pa.Table.from_arrays(columns, schema=SHARD).combine_chunks()


def _given_codes(column: pa.ChunkedArray, config: ShardsConfig) -> npt.NDArray[np.int8]:
    """Codes of the split that the log gives; -1 if it gives none."""
    codes = np.full(len(column), -1, np.int8)
    if config.split != "given":
        return codes
    for code, values in enumerate((config.given_train, config.given_valid, config.given_test)):
        mask = pc.is_in(column, pa.array(values, pa.string()))
        codes[mask.to_numpy()] = code
    return codes


def _user_counts(events: assignment.UserHistories, codes: npt.NDArray[np.int8]) -> dict[str, int]:
    """Counters about users, of whom all events are here."""
    users, index = np.unique(events.user, return_inverse=True)
    train, valid, test = (
        np.bincount(index[codes == code], minlength=len(users))
        for code in (assignment.TRAIN, assignment.VALID, assignment.TEST)
    )
    held_out = codes != assignment.TRAIN
    repeats = _repeats_train(events, held_out)
    return {
        "users_without_train": int((train == 0).sum()),
        "cold_users_test": int(((train == 0) & (test > 0)).sum()),
        "users_not_held_out": int((valid + test == 0).sum()),
        "repeats_valid": int((repeats & (codes[held_out] == assignment.VALID)).sum()),
        "repeats_test": int((repeats & (codes[held_out] == assignment.TEST)).sum()),
    }


def _repeats_train(
    events: assignment.UserHistories, held_out: npt.NDArray[np.bool_]
) -> npt.NDArray[np.bool_]:
    """For each event that is held out, whether its user has its item in train too."""
    pairs = events.user * (int(events.item.max()) + 1) + events.item
    train_pairs, held_out_pairs = np.sort(pairs[~held_out]), pairs[held_out]
    if not len(train_pairs):
        return np.zeros(len(held_out_pairs), bool)
    position = np.searchsorted(train_pairs, held_out_pairs).clip(max=len(train_pairs) - 1)
    return train_pairs[position] == held_out_pairs  # type: ignore[no-any-return]


def _add_empty_files(out: Writer, partitions: int) -> None:
    """Write an empty file for each partition without users: readers expect all of them."""
    written = {entry.path for entry in out.entries}
    for name in SPLITS:
        for number in range(partitions):
            path = FILES[name].path(number)
            if path not in written:
                out.write_table(path, SHARD.empty_table())


def _cold_items(session: SparkSession, out: Writer, live: int, rows: SideRows) -> dict[str, int]:
    """The numbers of live items without a train event, and of those of them that are in test."""
    frames = {
        name: read_parquet(
            session,
            out.storage,
            [f for f in out.entries if f.path.startswith(f"{name}/") and f.rows],
            _ITEM,
        )
        .where(f"not {is_shared_sql(rows, 'item_row')}")
        .distinct()
        for name in ("train", "test")
    }
    in_train = _row_count(frames["train"])
    cold = _row_count(frames["test"].join(frames["train"], "item_row", "left_anti"))
    return {"items_without_train": live - in_train, "cold_items_test": cold}


def _write_pairs(session: SparkSession, run: Run, out: Writer, spec: VocabSpec) -> dict[str, int]:
    """Write the pairs for item2vec, if the config asks for them."""
    config = run.config.shards.pairs
    if config is None:
        return {}
    rows = session_pairs.PairRows(
        spec.users, spec.items, run.config.run.partitions, run.config.run.seed
    )
    counters = session_pairs.write_pairs(session, out, config, rows, ("train",))
    if config.with_valid:
        counters |= session_pairs.write_pairs(session, out, config, rows, ("train", "valid"))
    return counters


def _row_count(table: DataFrame) -> int:
    counted: Any = collect(table.groupBy().count())
    return int(counted["count"][0].as_py())
