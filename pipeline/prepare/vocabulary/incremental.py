"""Which ids have a row and which row, where a vocabulary continues another or has shared rows.

An id that has its minimum count in this run is live; so is a known one that had it at most
`retire_after` runs ago and has events. All other known ids are retired: their rows stay
theirs, without events. New ids get the next rows. What is left is out of the vocabulary.

All that is known of an id meets in the task of its hash bucket, which settles it and leaves
known and new rows in scratch files; the driver sees counts.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession

from embedmill.pipeline.prepare.engine.frames import Batches, distribute
from embedmill.pipeline.prepare.engine.parquet_frame import read_parquet
from embedmill.pipeline.prepare.engine.spill_buffer import SpillBuffer
from embedmill.pipeline.prepare.engine.task_report import (
    TaskResults,
    run_tasks,
    task_report,
)
from embedmill.pipeline.prepare.vocabulary.base_vocabulary import Rows, slot_of
from embedmill.pipeline.prepare.vocabulary.counts import COUNTS
from embedmill.pipeline.prepare.vocabulary.row_numbers import ROWS, placed, ranked, write_rows
from embedmill.pipeline.store.artifact import Artifact
from embedmill.pipeline.store.parquet import write_table
from embedmill.pipeline.store.storage import Storage
from embedmill.schemas.manifest import FileEntry

__all__ = ["Ids", "Rule", "Settled", "in_grace", "settle", "write"]

_PREVIOUS = pa.schema(
    [("id", pa.string()), ("row", pa.int64()), ("missed", pa.int32()), ("live", pa.bool_())]
)
# What is known of an id, from any side: null where it does not say.
_SAID = pa.schema(
    [
        ("id", pa.string()),
        ("row", pa.int64()),
        ("missed", pa.int32()),
        ("was_live", pa.int32()),
        ("n", pa.int64()),
        ("enough", pa.int32()),
        ("slot", pa.int32()),
        ("bucket", pa.int32()),
    ]
)


_SHARED = pa.schema([("slot", pa.int64()), ("n", pa.int64())])
_KINDS = {"known": ROWS, "new": COUNTS, "shared": _SHARED}


@dataclass(frozen=True)
class Rule:
    """How ids are settled.

    `retire_after` runs in a row below its minimum keep an id live; `shared` rows (0: none)
    take the others, by their hash with `seed`; `buckets` of ids are settled apart.
    """

    retire_after: int
    shared: int
    seed: int
    buckets: int


@dataclass(frozen=True)
class Settled:
    """The ids of one side: scratch files of known ones, of new ones and of shared rows; counts.

    `counts` are `live` (`new` and `back`, after being retired, among them), `retired` (`gone`
    in this run among them), and `waiting` (known, below the minimum, not retired for it yet).
    """

    storage: Storage
    files: tuple[FileEntry, ...]
    counts: Counter[str]

    def frame(self, session: SparkSession, kind: str) -> DataFrame:
        """The rows of a kind of _KINDS."""
        files = [f for f in self.files if f"/{kind}-" in f.path]
        return read_parquet(session, self.storage, files, _KINDS[kind])

    def discard(self) -> None:
        """Remove the scratch files."""
        for entry in self.files:
            self.storage.remove(entry.path)


@dataclass(frozen=True)
class _Task:
    storage: Storage
    folder: str
    rule: Rule


def in_grace(
    session: SparkSession, previous: Artifact, core: DataFrame, side: str, retire_after: int
) -> DataFrame:
    """Ids that may have events in this run (column `side`, some of them twice): those that have
    their minimum count, and known ones that had it at most `retire_after` runs ago."""
    known = _known(session, previous, side).where(f"missed < {retire_after}")
    return core.selectExpr(f"id as {side}").union(known.selectExpr(f"id as {side}"))


@dataclass(frozen=True)
class Ids:
    """What is known of the ids of a side.

    `counts` (id, n) are the events that ids have if they are live, `core` (id) those with
    their minimum count, `previous` the vocabulary to continue.
    """

    counts: DataFrame
    core: DataFrame
    previous: Artifact | None


def settle(session: SparkSession, side: str, ids: Ids, rule: Rule, storage: Storage) -> Settled:
    """Settle every id of a side; scratch files go below `storage`, the stage's folder."""
    slot = f"cast({slot_of('id', rule.seed, rule.shared)} as int)" if rule.shared else None
    said = _saying(ids.counts, n="n", slot=slot).union(_saying(ids.core, enough="1"))
    if ids.previous is not None:
        known = _known(session, ids.previous, side)
        said = said.union(_saying(known, row="row", missed="missed", was_live="cast(live as int)"))
    task = _Task(storage, f"scratch/settled-{side}s", rule)
    bucketed = said.selectExpr("*", f"cast(pmod(xxhash64(id), {rule.buckets}) as int) as bucket")
    done = run_tasks(bucketed.repartition(rule.buckets, "bucket"), partial(_settle, task))
    return Settled(storage, tuple(done.files), done.counts)


def write(
    session: SparkSession, side: str, settled: Settled, rows: Rows, first: int
) -> TaskResults:
    """Write the vocabulary of a side; see `write_rows`.

    Args:
        session: the engine.
        side: "user" or "item".
        settled: its ids.
        rows: of the vocabulary that is written.
        first: the row of the first new id.
    """
    every = placed(settled.frame(session, "known"))
    if settled.counts["new"]:
        new = settled.frame(session, "new")
        every = every.union(ranked(new, settled.counts["new"], first))
    if rows.shared:
        every = every.union(placed(_shared(session, settled, rows)))
    return write_rows(every, rows.total, settled.storage, side)


def _shared(session: SparkSession, settled: Settled, rows: Rows) -> DataFrame:
    """The shared rows, as ROWS."""
    slots = pa.array(range(rows.shared), pa.int64())
    nothing = pa.table([slots, np.zeros(rows.shared, np.int64)], schema=_SHARED)
    every = distribute(session, nothing, "slot", 1).union(settled.frame(session, "shared"))
    summed = every.groupBy("slot").sum("n").withColumnRenamed("sum(n)", "n")
    return summed.selectExpr(
        f"slot + {rows.shared_from} as row",
        "cast(null as string) as id",
        "n",
        "cast(0 as int) as missed",
    )


def _known(session: SparkSession, previous: Artifact, side: str) -> DataFrame:
    return read_parquet(session, previous.storage, previous.files(f"{side}s"), _PREVIOUS).where(
        "id is not null"
    )


def _saying(ids: DataFrame, **known: str | None) -> DataFrame:
    """A frame of _SAID without bucket: SQL for what is known, null for the rest."""
    types = {"int64": "bigint", "int32": "int"}
    columns = [
        f"cast({known.get(f.name) or 'null'} as {types[str(f.type)]}) as {f.name}"
        for f in _SAID
        if f.name not in ("id", "bucket")
    ]
    return ids.selectExpr("id", *columns)


def _settle(task: _Task, batches: Batches) -> Batches:
    buffer = SpillBuffer.from_batches(batches, _SAID)
    yield from buffer.drain_groups("bucket", partial(_settle_bucket, task))


def _settle_bucket(task: _Task, number: int, rows: pa.Table) -> Batches:
    """The scratch files of a bucket, each sorted by id."""
    names = [f.name for f in _SAID if f.name not in ("id", "bucket")]
    ids = rows.group_by("id", use_threads=False).aggregate([(name, "max") for name in names])
    ids = ids.sort_by("id")
    row, missed, was_live, n, enough, slot = (
        ids[f"{name}_max"].fill_null(-1).to_numpy() for name in names
    )
    known, enough, n = row >= 0, enough > 0, np.maximum(n, 0)
    missed = np.where(enough, 0, missed + 1)
    grace = known & ~enough & (missed <= task.rule.retire_after)
    live = (n > 0) & (enough | grace)
    new, out = live & ~known, (n > 0) & ~live
    counts = {
        "live": int(live.sum()),
        "new": int(new.sum()),
        "back": int((live & known & (was_live == 0)).sum()),
        "retired": int((known & ~live).sum()),
        "gone": int((known & ~live & (was_live == 1)).sum()),
        "waiting": int(grace.sum()),
    }
    kept = pa.table([row, ids["id"], np.where(live, n, 0), missed], schema=ROWS)
    fresh = pa.table([ids["id"], n], schema=COUNTS)
    others = pa.table([slot, n], schema=_SHARED)
    chosen = {"known": (kept, known), "new": (fresh, new)}
    if task.rule.shared:
        chosen["shared"] = (others, out)
    for kind, (table, flags) in chosen.items():
        if flags.any():
            entry = _written(task, f"{kind}-{number:05d}", table.filter(pa.array(flags)))
            yield task_report(entry, {})
    yield task_report(None, counts)


def _written(task: _Task, name: str, table: pa.Table) -> FileEntry:
    path = f"{task.folder}/{name}.parquet"
    return write_table(task.storage, path, table.combine_chunks())
