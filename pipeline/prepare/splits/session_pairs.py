"""Pairs of items from the sessions of train events, on which item2vec trains.

A task finds the pairs in the sessions of whole users. A second shuffle brings the pairs with the
same center together; they are summed and written by partition of the center, in order of a hash.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import partial

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame, SparkSession

from embedmill.pipeline.config import PairsConfig
from embedmill.pipeline.prepare.engine.backpressure import LOCAL
from embedmill.pipeline.prepare.engine.frames import (
    Batches,
    concat_batches,
    group_by_key,
    map_batches,
    task_count,
)
from embedmill.pipeline.prepare.engine.ordering import order_by
from embedmill.pipeline.prepare.engine.parquet_frame import read_parquet
from embedmill.pipeline.prepare.engine.spill_buffer import SpillBuffer
from embedmill.pipeline.prepare.engine.task_report import run_tasks, task_report
from embedmill.pipeline.prepare.hashing import mix64
from embedmill.pipeline.prepare.splits.sessions import (
    EventArrays,
    Sessions,
    SessionWindow,
    subsample,
)
from embedmill.pipeline.prepare.vocabulary.shared_rows import is_shared
from embedmill.pipeline.store.artifact_writer import Writer
from embedmill.pipeline.store.parquet import write_parquet
from embedmill.pipeline.store.storage import Storage
from embedmill.schemas.manifest import FileEntry
from embedmill.schemas.shards import FILES, PAIR, pairs_of
from embedmill.schemas.vocab import SideRows

__all__ = ["PairRows", "write_pairs"]

Ints = npt.NDArray[np.int64]

_MINUTE = 60_000_000  # microseconds
_BATCH_PLACES = 1 << 21  # pairs of places that a task looks at before it hands on a batch
_EVENT = pa.schema([(name, pa.int64()) for name in ("user_row", "item_row", "time", "hash")])
_BUCKETED_EVENTS = pa.schema([*_EVENT, ("frequency", pa.int64()), ("partition", pa.int32())])


class _RowKind(IntEnum):
    """What a row of the shuffle of pairs is; columns that a kind does not use are null.

    PAIR: `center_row`, `context_row`, `count`. COUNTERS: `counters`, what the task has counted;
    a list of one struct, because a null list takes 4 bytes and a null struct all its fields.
    """

    PAIR = 0
    COUNTERS = 1


# Counters of a task, which name the counters of the stage with the folder before them.
_COUNTERS = ("found", "events", "thinned_out", "shared_out", "sessions", "sessions_cut")
_PAIR_COLUMNS = ("center_row", "context_row", "count")
_SHUFFLE = pa.schema(
    [
        ("kind", pa.int8()),
        *((name, pa.int64()) for name in _PAIR_COLUMNS),
        ("counters", pa.list_(pa.struct([(name, pa.int64()) for name in _COUNTERS]))),
    ]
)
_SHUFFLE_DDL = (
    f"kind tinyint, {', '.join(f'{name} long' for name in _PAIR_COLUMNS)}, "
    f"counters array<struct<{', '.join(f'{name} long' for name in _COUNTERS)}>>"
)
_BUCKETED_PAIRS = pa.schema(
    [*((name, pa.int64()) for name in _PAIR_COLUMNS), ("partition", pa.int32())]
)


@dataclass(frozen=True)
class PairRows:
    """Rows of the vocabulary, partitions of the run, and the run's seed."""

    users: SideRows
    items: SideRows
    partitions: int
    seed: int


@dataclass(frozen=True)
class _Task:
    """What every task needs; `events` is the number of events of all tasks."""

    storage: Storage
    folder: str
    window: SessionWindow
    subsample: float
    events: int
    rows: PairRows


def write_pairs(
    session: SparkSession,
    out: Writer,
    config: PairsConfig,
    rows: PairRows,
    splits: Sequence[str],
) -> dict[str, int]:
    """Write the pairs of the events of some splits.

    Args:
        session: the engine's session.
        out: writer of the `shards` artifact, which has the files of the splits already.
        config: `shards.pairs` of the config.
        rows: rows and partitions of the run.
        splits: ("train",) or ("train", "valid"); see `schemas.shards.pairs_of`.

    Returns:
        counters, whose names begin with the folder's.
    """
    folder = pairs_of(splits)
    files = [f for f in out.entries if f.path.split("/")[0] in splits and f.rows]
    task = _Task(
        storage=out.storage,
        folder=folder,
        window=_window(config),
        subsample=config.subsample,
        events=sum(f.rows or 0 for f in files),
        rows=rows,
    )
    events = _events(
        session, out.storage, files, rows.partitions, with_frequency=bool(config.subsample)
    )
    tasks = task_count(sum(f.bytes for f in files), rows.partitions)
    found = map_batches(events.repartition(tasks, "partition"), partial(_find, task), _SHUFFLE_DDL)
    # Counters, which have no center, go to partition 0.
    bucketed = found.selectExpr("*", _partition("coalesce(center_row, 0)", rows.partitions))
    reach = min(config.window or config.max_session, config.max_session)
    tasks = task_count(task.events * reach * 8, rows.partitions)
    done = run_tasks(bucketed.repartition(tasks, "partition"), partial(_write, task))
    out.add(done.files)
    written = {entry.path for entry in done.files}
    for number in range(rows.partitions):
        path = FILES[folder].path(number)
        if path not in written:
            out.write_table(path, PAIR.empty_table())
    names = ("", "_counted", *(f"_{name}" for name in _COUNTERS))
    return {f"{folder}{name}": done.counts[name] for name in names}


def _window(config: PairsConfig) -> SessionWindow:
    return SessionWindow(
        max_distance=config.window,
        max_time=round(config.window_minutes * _MINUTE),
        gap=round(config.session_gap_minutes * _MINUTE),
        max_events=config.max_session,
    )


def _events(
    session: SparkSession,
    storage: Storage,
    files: Sequence[FileEntry],
    partitions: int,
    *,
    with_frequency: bool,
) -> DataFrame:
    """Events with the partition of their user, and how many events their item has (0 if unused)."""
    events = read_parquet(session, storage, files, _EVENT)
    if with_frequency:
        counts = events.groupBy("item_row").count().selectExpr("item_row", "count as frequency")
        events = counts.join(events, "item_row")
    else:
        events = events.selectExpr("*", "cast(0 as bigint) as frequency")
    return events.selectExpr(*_EVENT.names, "frequency", _partition("user_row", partitions))


def _partition(row: str, partitions: int) -> str:
    return f"cast({row} % {partitions} as int) as partition"


def _find(task: _Task, batches: Batches) -> Batches:
    """The pairs in the sessions of whole users, summed within a batch; and the task's counters."""
    for _, rows in group_by_key(concat_batches(batches, _BUCKETED_EVENTS), "partition"):
        with LOCAL.compute_slot():
            user_E, item_E, time_E, hash_E, frequency_E = (
                rows[name].to_numpy() for name in (*_EVENT.names, "frequency")
            )
            # A shared row stands for many users, whose events together are no session.
            shared_E = is_shared(task.rows.users, user_E)
            keep_E = subsample(hash_E, frequency_E, task.events, task.subsample) & ~shared_E
            events = EventArrays(user_E, item_E, time_E, hash_E)
            sessions = Sessions.from_events(events, keep_E, task.window)
        found, pairs = 0, sessions.pairs(task.window, _BATCH_PLACES)
        while True:
            with LOCAL.compute_slot():
                batch = next(pairs, None)
                if batch is None:
                    break
                table = _pair_table(*batch, task.rows.items.total)
                found += pc.sum(table["count"]).as_py() or 0
            yield from table.to_batches(1 << 16)
        yield _counters_row(
            {
                "found": found,
                "events": int(keep_E.sum()),
                "thinned_out": int((~keep_E & ~shared_E).sum()),
                "shared_out": int(shared_E.sum()),
                "sessions": sessions.number,
                "sessions_cut": sessions.too_long,
            }
        )


def _pair_table(center_M: Ints, context_M: Ints, items: int) -> pa.Table:
    """Distinct pairs and how often each occurs, as rows of the shuffle."""
    key_M, count_M = _sum_by_key(center_M * items + context_M, np.ones_like(center_M))
    kind_M = np.full(len(key_M), _RowKind.PAIR, np.int8)
    no_counters = pa.nulls(len(key_M), _SHUFFLE.field("counters").type)
    return pa.table([kind_M, key_M // items, key_M % items, count_M, no_counters], schema=_SHUFFLE)


def _counters_row(counters: Mapping[str, int]) -> pa.RecordBatch:
    row = {"kind": int(_RowKind.COUNTERS), "counters": [counters]}
    return pa.RecordBatch.from_pylist([row], schema=_SHUFFLE)


def _write(task: _Task, batches: Batches) -> Batches:
    """Write each partition of the task; hand on the counters among the rows."""
    buffer = SpillBuffer(_BUCKETED_PAIRS)
    for batch in batches:
        kinds = batch.column("kind").to_numpy()
        if kinds.any():
            yield from _reports(batch.filter(pa.array(kinds == _RowKind.COUNTERS)))
            batch = batch.filter(pa.array(kinds == _RowKind.PAIR))
        buffer.append(batch.select(_BUCKETED_PAIRS.names))
    yield from buffer.drain_groups("partition", partial(_write_partition, task))


def _reports(rows: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    for counters in pc.list_flatten(rows.column("counters")).to_pylist():
        yield task_report(None, {f"_{name}": counters[name] for name in _COUNTERS})


def _write_partition(task: _Task, number: int, rows: pa.Table) -> Batches:
    """Write the distinct pairs of a partition with their counts."""
    items = task.rows.items.total
    center_M, context_M = rows["center_row"].to_numpy(), rows["context_row"].to_numpy()
    key_M, count_M = _sum_by_key(center_M * items + context_M, rows["count"].to_numpy())
    hash_M = mix64(key_M ^ np.int64(task.rows.seed)).view(np.int64)
    order = order_by(hash_M, key_M)
    key_M, count_M = key_M[order], count_M[order]
    table = pa.table([key_M // items, key_M % items, count_M, hash_M[order]], schema=PAIR)
    path = FILES[task.folder].path(number)
    entry = write_parquet(task.storage, "shards", path, table)
    yield task_report(entry, {"": table.num_rows, "_counted": int(count_M.sum())})


def _sum_by_key(key_M: Ints, count_M: Ints) -> tuple[Ints, Ints]:
    """Distinct keys, rising, and the sum of the counts of each."""
    order = np.argsort(key_M, kind="stable")
    key_M = key_M[order]
    starts = np.flatnonzero(np.append(True, key_M[1:] != key_M[:-1])[: len(key_M)])
    if not len(starts):
        return key_M, count_M
    return key_M[starts], np.add.reduceat(count_M[order], starts)
