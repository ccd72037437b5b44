"""Pairs of items from the sessions of train events: what item2vec trains on.

A task finds the pairs of whole users; a second shuffle brings those of a center together,
where they are counted and written by partition of the center, in hash order.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
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
from embedmill.pipeline.prepare.splits.assignment import mixed
from embedmill.pipeline.prepare.splits.sessions import Log, Sessions, Window, kept
from embedmill.pipeline.prepare.vocabulary.base_vocabulary import Rows
from embedmill.pipeline.store.artifact import Writer
from embedmill.pipeline.store.parquet import write_parquet
from embedmill.pipeline.store.storage import Storage
from embedmill.schemas.manifest import FileEntry
from embedmill.schemas.shards import PAIR

__all__ = ["write"]

Ints = npt.NDArray[np.int64]

_MINUTE = 60_000_000
_PLACES = 1 << 21  # of windows looked at between two batches of pairs
_EVENT = pa.schema([(name, pa.int64()) for name in ("user_row", "item_row", "time", "hash")])
_LOG = pa.schema([*_EVENT, ("frequency", pa.int64()), ("partition", pa.int32())])
# What a task found: pairs, and one row with its counts as JSON.
_FOUND_DDL = "center_row long, context_row long, count long, counts string"
_FOUND = pa.schema(
    [(name, pa.int64()) for name in ("center_row", "context_row", "count")]
    + [("counts", pa.string())]
)
_SHUFFLED = pa.schema([*_FOUND, ("partition", pa.int32())])


@dataclass(frozen=True)
class _Task:
    storage: Storage
    folder: str
    window: Window
    subsample: float
    events: int
    space: Space


@dataclass(frozen=True)
class Space:
    """Rows of the vocabulary, partitions of the run, and its seed."""

    users: Rows
    items: Rows
    partitions: int
    seed: int


def write(
    session: SparkSession, out: Writer, config: PairsConfig, space: Space, splits: Sequence[str]
) -> dict[str, int]:
    """Write the pairs of the events of `splits`, whose files `out` has already.

    Files are below pairs/ for train alone, below pairs_with_valid/ for train and valid.

    Returns:
        counters, each named after the folder.
    """
    folder = "pairs" if tuple(splits) == ("train",) else "pairs_with_valid"
    files = [f for f in out.entries if f.path.split("/")[0] in splits and f.rows]
    task = _Task(
        storage=out.storage,
        folder=folder,
        window=_window(config),
        subsample=config.subsample,
        events=sum(f.rows or 0 for f in files),
        space=space,
    )
    log = _log(session, out.storage, files, space.partitions, thinned=bool(config.subsample))
    tasks = task_count(sum(f.bytes for f in files), space.partitions)
    found = map_batches(log.repartition(tasks, "partition"), partial(_find, task), _FOUND_DDL)
    placed = found.selectExpr(
        "*", f"cast(coalesce(center_row, 0) % {space.partitions} as int) as partition"
    )
    reach = min(config.window or config.max_session, config.max_session)
    tasks = task_count(task.events * reach * 8, space.partitions)
    done = run_tasks(placed.repartition(tasks, "partition"), partial(_write, task))
    out.add(done.files)
    there = {entry.path for entry in done.files}
    for number in range(space.partitions):
        path = f"{folder}/part-{number:05d}.parquet"
        if path not in there:
            out.write_table(path, PAIR.empty_table())
    names = ("", "_found", "_counted", "_events", "_thinned_out", "_shared_out", "_sessions",
             "_sessions_cut")  # fmt: skip
    return {f"{folder}{name}": done.counts[name] for name in names}


def _window(config: PairsConfig) -> Window:
    return Window(
        items=config.window,
        time=round(config.window_minutes * _MINUTE),
        gap=round(config.session_gap_minutes * _MINUTE),
        longest=config.max_session,
    )


def _log(
    session: SparkSession,
    storage: Storage,
    files: Sequence[FileEntry],
    partitions: int,
    *,
    thinned: bool,
) -> DataFrame:
    """Events by user partition; beside each how many events its item has, where that counts."""
    log = read_parquet(session, storage, files, _EVENT)
    if thinned:
        counts = log.groupBy("item_row").count().selectExpr("item_row", "count as frequency")
        log = counts.join(log, "item_row")
    else:
        log = log.selectExpr("*", "cast(0 as bigint) as frequency")
    return log.selectExpr(*_EVENT.names, "frequency", _partition("user_row", partitions))


def _partition(column: str, partitions: int) -> str:
    return f"cast({column} % {partitions} as int) as partition"


def _find(task: _Task, batches: Batches) -> Batches:
    """Pairs of the sessions of whole users, counted within a batch."""
    table, items = concat_batches(batches, _LOG), task.space.items.total
    for _, rows in group_by_key(table, "partition"):
        with LOCAL.compute_slot():
            user_E, item_E, time_E, hash_E, frequency_E = (
                rows[name].to_numpy() for name in (*_EVENT.names, "frequency")
            )
            # A shared row's events are of many users: they make no session.
            shared_E = task.space.users.shares(user_E)
            stay_E = kept(hash_E, frequency_E, task.events, task.subsample) & ~shared_E
            sessions = Sessions.of(Log(user_E, item_E, time_E, hash_E), stay_E, task.window)
        counts = {
            "_events": int(stay_E.sum()),
            "_thinned_out": int((~stay_E & ~shared_E).sum()),
            "_shared_out": int(shared_E.sum()),
            "_sessions": sessions.number,
            "_sessions_cut": sessions.cut,
        }
        found, pairs = 0, sessions.pairs(task.window, _PLACES)
        while True:
            with LOCAL.compute_slot():
                pair = next(pairs, None)
                if pair is None:
                    break
                key, count = _summed(pair[0] * items + pair[1], np.ones_like(pair[0]))
                part = pa.table(
                    [key // items, key % items, count, pa.nulls(len(key), pa.string())],
                    schema=_FOUND,
                )
                found += int(count.sum())
            yield from part.to_batches(1 << 16)
        said = json.dumps(counts | {"_found": found})
        yield pa.RecordBatch.from_pylist([{"counts": said}], schema=_FOUND)


def _write(task: _Task, batches: Batches) -> Batches:
    buffer = SpillBuffer.from_batches(batches, _SHUFFLED)
    yield from buffer.drain_groups("partition", partial(_write_partition, task))


def _write_partition(task: _Task, number: int, rows: pa.Table) -> Batches:
    """The pairs of a partition's centers, each once, with how often it was met."""
    counts: Counter[str] = Counter()
    items = task.space.items.total
    for said in pc.drop_null(rows["counts"]).to_pylist():
        counts.update(json.loads(said))
    rows = rows.filter(pc.is_valid(rows["center_row"]))
    center_M, context_M = rows["center_row"].to_numpy(), rows["context_row"].to_numpy()
    key_M, count_M = _summed(center_M * items + context_M, rows["count"].to_numpy())
    hash_M = mixed(key_M ^ np.int64(task.space.seed)).view(np.int64)
    order = order_by(hash_M, key_M)
    key_M, count_M = key_M[order], count_M[order]
    table = pa.table([key_M // items, key_M % items, count_M, hash_M[order]], schema=PAIR)
    path = f"{task.folder}/part-{number:05d}.parquet"
    counts |= {"": table.num_rows, "_counted": int(count_M.sum())}
    yield task_report(write_parquet(task.storage, "shards", path, table), counts)


def _summed(key_M: Ints, count_M: Ints) -> tuple[Ints, Ints]:
    """Distinct keys, rising, and the sum of the counts of each."""
    order = np.argsort(key_M, kind="stable")
    key_M = key_M[order]
    starts = np.flatnonzero(np.append(True, key_M[1:] != key_M[:-1])[: len(key_M)])
    if not len(starts):
        return key_M, count_M
    return key_M[starts], np.add.reduceat(count_M[order], starts)
