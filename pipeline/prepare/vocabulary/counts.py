"""How many events each user and each item has, left on disk between rounds of `vocab`.

Counts are kept in scratch files below the stage's folder, one per side and hash bucket of the
id; the driver sees only their sizes and a sample of ids.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame, SparkSession

from embedmill.pipeline.prepare.engine.backpressure import LOCAL, Backpressure
from embedmill.pipeline.prepare.engine.frames import Batches, map_batches
from embedmill.pipeline.prepare.engine.parquet_frame import read_parquet
from embedmill.pipeline.prepare.engine.spill_buffer import SpillBuffer
from embedmill.pipeline.prepare.engine.task_report import run_tasks, task_report
from embedmill.pipeline.prepare.histograms import counted, spread_of
from embedmill.pipeline.store.parquet import write_table
from embedmill.pipeline.store.storage import Storage
from embedmill.schemas.manifest import FileEntry

__all__ = ["COUNTS", "SIDES", "Counts", "count", "discard"]

SIDES = ("user", "item")
COUNTS = pa.schema([("id", pa.string()), ("n", pa.int64())])
_PARTIAL = pa.schema([("side", pa.int32()), *COUNTS])
_BUCKETED = _PARTIAL.append(pa.field("bucket", pa.int32()))
_ROWS = 1 << 18  # events counted at once, by each of a stage's tasks


@dataclass(frozen=True)
class Counts:
    """Counts of a round: scratch files, and how many ids meet their side's minimum.

    `ids`, `kept` and `spread` (see `tallies.spread_of`) are by side; `events` were counted.
    """

    storage: Storage
    minimum: tuple[int, int]
    files: tuple[FileEntry, ...]
    ids: dict[str, int]
    kept: dict[str, int]
    events: int
    spread: dict[str, dict[str, Any]]

    @property
    def stable(self) -> bool:
        """Whether every id that has events is kept."""
        return self.ids == self.kept

    def of(self, session: SparkSession, side: str) -> DataFrame:
        """Kept ids of a side with their counts."""
        return self.every(session, side).where(f"n >= {self.minimum[SIDES.index(side)]}")

    def every(self, session: SparkSession, side: str) -> DataFrame:
        """All ids of a side that have events, with their counts."""
        files = [f for f in self.files if f"/{side}s-" in f.path]
        return read_parquet(session, self.storage, files, COUNTS)


@dataclass(frozen=True)
class _Task:
    storage: Storage
    folder: str
    minimum: tuple[int, int]


def count(
    events: DataFrame, storage: Storage, minimum: tuple[int, int], number: int, buckets: int
) -> Counts:
    """Count the events of each id.

    Args:
        events: columns user, item.
        storage: the stage's folder.
        minimum: least events of a user, of an item.
        number: of the round; names its scratch files.
        buckets: hash buckets of ids.
    """
    task = _Task(storage, f"scratch/round-{number}", minimum)
    pairs = events.select("user", "item")
    partials = map_batches(pairs, partial(_partials, LOCAL), "side int, id string, n long")
    bucketed = partials.selectExpr(
        "*", f"cast(pmod(xxhash64(id), {buckets}) * 2 + side as int) as bucket"
    ).repartition(buckets, "bucket")
    done = run_tasks(bucketed, partial(_sum, task))
    return Counts(
        storage,
        minimum,
        tuple(done.files),
        {side: done.counts[f"{side}s"] for side in SIDES},
        {side: done.counts[f"{side}s_kept"] for side in SIDES},
        done.counts["events"],
        {side: spread_of(done.counts, side) for side in SIDES},
    )


def discard(counts: Counts) -> None:
    """Remove the scratch files."""
    for entry in counts.files:
        counts.storage.remove(entry.path)


def _partials(backpressure: Backpressure, batches: Batches) -> Batches:
    """(side, id, count) of some hundred thousand events at a time."""
    return backpressure.throttle(_counted_by_chunk(batches))


def _counted_by_chunk(batches: Batches) -> Batches:
    held: list[pa.RecordBatch] = []
    rows = 0
    for batch in batches:
        held.append(batch)
        rows += batch.num_rows
        if rows >= _ROWS:
            yield from _count_ids(held)
            held, rows = [], 0
    yield from _count_ids(held)


def _count_ids(held: list[pa.RecordBatch]) -> Batches:
    for number, side in enumerate(SIDES):
        ids = pa.chunked_array([b.column(b.schema.names.index(side)) for b in held], pa.string())
        counted = pc.value_counts(ids)
        if not len(counted):
            continue
        sides = pa.repeat(pa.scalar(number, pa.int32()), len(counted))
        columns = [sides, counted.field("values"), counted.field("counts")]
        yield from pa.Table.from_arrays(columns, schema=_PARTIAL).to_batches(1 << 16)


def _sum(task: _Task, batches: Batches) -> Batches:
    buffer = SpillBuffer.from_batches(batches, _BUCKETED)
    yield from buffer.drain_groups("bucket", partial(_sum_bucket, task))


def _sum_bucket(task: _Task, key: int, rows: pa.Table) -> Batches:
    """The scratch file of a side and bucket, sorted by id."""
    side, least = SIDES[key % 2], task.minimum[key % 2]
    summed = rows.group_by("id", use_threads=False).aggregate([("n", "sum")]).sort_by("id")
    table = pa.Table.from_arrays([summed["id"], summed["n_sum"]], schema=COUNTS)
    path = f"{task.folder}/{side}s-{key // 2:05d}.parquet"
    entry = write_table(task.storage, path, table.combine_chunks())
    kept = pc.sum(pc.greater_equal(table["n"], least)).as_py() or 0
    found = {f"{side}s": table.num_rows, f"{side}s_kept": kept}
    if side == "user":
        found["events"] = pc.sum(table["n"]).as_py() or 0
    yield task_report(entry, found | counted(side, table["id"], table["n"]))
