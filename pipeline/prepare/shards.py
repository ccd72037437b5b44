"""Stage `shards`: events as rows, split once, partitioned by user, in hash order.

A user's events meet in one task, which decides their split, looks for leakage and writes the
files of its partition.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
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
from embedmill.pipeline.prepare.engine.frames import (
    Batches,
    collect,
    engine_versions,
    task_count,
)
from embedmill.pipeline.prepare.engine.ordering import order_by
from embedmill.pipeline.prepare.engine.parquet_frame import read_parquet
from embedmill.pipeline.prepare.engine.spill_buffer import SpillBuffer
from embedmill.pipeline.prepare.engine.task_monitor import report_progress
from embedmill.pipeline.prepare.engine.task_report import run_tasks, task_report
from embedmill.pipeline.prepare.splits import assignment, session_pairs
from embedmill.pipeline.prepare.splits.boundaries import Span, cuts_of
from embedmill.pipeline.prepare.vocabulary.base_vocabulary import Rows, Spec
from embedmill.pipeline.store.artifact import Artifact, Writer
from embedmill.pipeline.store.parquet import write_parquet
from embedmill.pipeline.store.run import Run
from embedmill.pipeline.store.storage import Storage
from embedmill.schemas.events import EVENTS
from embedmill.schemas.shards import SHARD

__all__ = ["build"]

NAMES = ("train", "valid", "test")
_COUNTS = (
    *NAMES,
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
    cuts: assignment.Cuts
    config: ShardsConfig
    spec: Spec


def build(session: SparkSession, run: Run, out: Writer, progress: Progress) -> None:
    """Write shards/: train, valid and test, a file per partition each; pairs if asked for.

    An event of a shared row is for training alone: whose it is, or of what, is not known. One
    that would be held out is dropped.

    Raises:
        InputError: the split column holds a value that the config does not name.
        ContractError: events are lost or leak between splits.
    """
    events, vocab = run.artifact("events"), run.artifact("vocab")
    partitions = run.config.run.partitions
    spec = Spec.of(vocab)
    tasks = task_count(sum(f.bytes for f in events.files("data")), partitions)
    with report_progress(progress, "rows read"):
        looked_at = _joined(session, run, events, vocab, throttled=False)
        cuts = cuts_of(run.config.shards, looked_at, _span(events, vocab))
        task = _Task(out.storage, cuts, run.config.shards, spec)
        joined = _joined(session, run, events, vocab, throttled=True)
        shuffled = joined.repartition(tasks, "partition")
        done = run_tasks(shuffled, partial(_write, task))
    kept = sum(done.counts[name] for name in NAMES)
    found = kept + done.counts["shared_held_out"]
    if found != vocab.counters["events_kept"]:
        raise ContractError(
            f"{found:,} events found their rows, the vocabulary kept "
            f"{vocab.counters['events_kept']:,}",
            where=out.storage.root,
            todo="This is a bug; nothing was committed",
        )
    out.add(done.files)
    _fill_up(out, partitions)
    total = events.counters["events"]
    counters = {name: done.counts[name] for name in _COUNTS}
    counters |= {"events_in": total, "dropped": total - kept}
    counters |= _cold_items(session, out, vocab.counters["items_live"], spec.items)
    counters |= _pairs(session, run, out, spec)
    progress.update(total, total, "events")
    read = {"read_bytes": sum(f.bytes for f in (*events.files("data"), *vocab.files()))}
    out.commit(counters, read, engine_versions(session))


def _span(events: Artifact, vocab: Artifact) -> Span | None:
    """Where the times of the kept events lie; None where the log has none."""
    if not events.has("days.json"):
        return None
    return Span.of(events.read_json("days.json"), vocab.counters["events_kept"])


def _joined(
    session: SparkSession, run: Run, events: Artifact, vocab: Artifact, *, throttled: bool
) -> DataFrame:
    """Events with rows for ids, their hash and partition.

    Ids without a live row share one by their hash, or drop out.
    """
    seed, partitions, spec = run.config.run.seed, run.config.run.partitions, Spec.of(vocab)
    nullable = pa.schema([pa.field(f.name, f.type) for f in EVENTS])
    files = events.files("data")
    log = read_parquet(session, events.storage, files, nullable, throttled=throttled).selectExpr(
        "*", f"xxhash64(user, item, time, weight, cast({seed} as bigint)) as hash"
    )
    # Sail builds its hash table from the left side of a join: the smaller one.
    for side in ("user", "item"):
        rows = _rows(session, vocab, f"{side}s").selectExpr(f"id as {side}", f"row as own_{side}")
        if spec.side(side).shared:
            log = rows.join(log, side, "right")
            row = f"coalesce(own_{side}, cast({spec.slot(side)} as bigint))"
        else:
            log, row = rows.join(log, side), f"own_{side}"
        log = log.selectExpr("*", f"{row} as {side}_row").drop(side, f"own_{side}")
    return log.selectExpr(
        *(name for name in _JOINED.names if name != "partition"),
        f"cast(user_row % {partitions} as int) as partition",
    )


def _rows(session: SparkSession, vocab: Artifact, folder: str) -> DataFrame:
    schema = pa.schema([("row", pa.int64()), ("id", pa.string()), ("live", pa.bool_())])
    return read_parquet(session, vocab.storage, vocab.files(folder), schema).where("live")


def _write(task: _Task, batches: Batches) -> Batches:
    buffer = SpillBuffer.from_batches(batches, _JOINED)
    yield from buffer.drain_groups("partition", partial(_write_partition, task))


def _write_partition(task: _Task, number: int, rows: pa.Table) -> Batches:
    """The three files of a partition."""
    events = assignment.Events(
        user=rows["user_row"].to_numpy(),
        item=rows["item_row"].to_numpy(),
        time=rows["time"].fill_null(0).to_numpy(),
        hash=rows["hash"].to_numpy(),
        given=_given(rows["split"], task.config),
    )
    codes = assignment.SPLITS[task.cuts.kind](events, task.cuts)
    assignment.check(task.cuts.kind, events.user, events.time, codes)
    shared_user = task.spec.users.shares(events.user)
    shared = shared_user | task.spec.items.shares(events.item)
    codes[shared & (codes != assignment.TRAIN)] = assignment.DROPPED
    order = order_by(events.hash, events.user, events.item, events.time)
    for code, name in enumerate(NAMES):
        table = _shard(rows.take(pa.array(order[codes[order] == code])))
        path = f"{name}/part-{number:05d}.parquet"
        entry = write_parquet(task.storage, "shards", path, table)
        yield task_report(entry, {name: table.num_rows})
    dropped = int((codes == assignment.DROPPED).sum())
    own = assignment.Events(*(getattr(events, f.name)[~shared_user] for f in fields(events)))
    counts = _counts(own, codes[~shared_user]) if len(own.user) else {}
    yield task_report(None, {"shared_held_out": dropped, **counts})


def _shard(rows: pa.Table) -> pa.Table:
    columns = [rows[name].cast(SHARD.field(name).type, safe=False) for name in SHARD.names]
    return pa.Table.from_arrays(columns, schema=SHARD).combine_chunks()


def _given(column: pa.ChunkedArray, config: ShardsConfig) -> npt.NDArray[np.int8]:
    """Codes of the split that the log gives; -1 where it gives none."""
    codes = np.full(len(column), -1, np.int8)
    if config.split != "given":
        return codes
    for code, names in enumerate((config.given_train, config.given_valid, config.given_test)):
        mask = pc.is_in(column, pa.array(names, pa.string()))
        codes[mask.to_numpy()] = code
    return codes


def _counts(events: assignment.Events, codes: npt.NDArray[np.int8]) -> dict[str, int]:
    """Counts about users, all of whose events are here."""
    users, place = np.unique(events.user, return_inverse=True)
    train, valid, test = (
        np.bincount(place[codes == code], minlength=len(users))
        for code in (assignment.TRAIN, assignment.VALID, assignment.TEST)
    )
    held_out = codes != assignment.TRAIN
    seen = _seen(events, held_out)
    return {
        "users_without_train": int((train == 0).sum()),
        "cold_users_test": int(((train == 0) & (test > 0)).sum()),
        "users_not_held_out": int((valid + test == 0).sum()),
        "repeats_valid": int((seen & (codes[held_out] == assignment.VALID)).sum()),
        "repeats_test": int((seen & (codes[held_out] == assignment.TEST)).sum()),
    }


def _seen(events: assignment.Events, held_out: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Of each event that is held out, whether its user has its item in train too."""
    pairs = events.user * (int(events.item.max()) + 1) + events.item
    known, asked = np.sort(pairs[~held_out]), pairs[held_out]
    if not len(known):
        return np.zeros(len(asked), bool)
    return known[np.searchsorted(known, asked).clip(max=len(known) - 1)] == asked  # type: ignore[no-any-return]


def _fill_up(out: Writer, partitions: int) -> None:
    """An empty file for every partition without users: readers count on all of them."""
    there = {entry.path for entry in out.entries}
    for name in NAMES:
        for number in range(partitions):
            path = f"{name}/part-{number:05d}.parquet"
            if path not in there:
                out.write_table(path, SHARD.empty_table())


def _cold_items(session: SparkSession, out: Writer, live: int, rows: Rows) -> dict[str, int]:
    """How many live items no train event has, and how many of these are in test."""
    frames = {
        name: read_parquet(
            session,
            out.storage,
            [f for f in out.entries if f.path.startswith(f"{name}/") and f.rows],
            _ITEM,
        )
        .where(f"not {rows.holds('item_row')}")
        .distinct()
        for name in ("train", "test")
    }
    trained = _size(frames["train"])
    cold = _size(frames["test"].join(frames["train"], "item_row", "left_anti"))
    return {"items_without_train": live - trained, "cold_items_test": cold}


def _pairs(session: SparkSession, run: Run, out: Writer, spec: Spec) -> dict[str, int]:
    """Pairs for item2vec, where the config asks for them."""
    config = run.config.shards.pairs
    if config is None:
        return {}
    space = session_pairs.Space(
        spec.users, spec.items, run.config.run.partitions, run.config.run.seed
    )
    counters = session_pairs.write(session, out, config, space, ("train",))
    if config.with_valid:
        counters |= session_pairs.write(session, out, config, space, ("train", "valid"))
    return counters


def _size(distinct: DataFrame) -> int:
    table: Any = collect(distinct.groupBy().count())
    return int(table["count"][0].as_py())
