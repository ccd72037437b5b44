"""Numbers of events of all users and items, kept on disk between the rounds of stage `vocab`.

The counts are in scratch files below the stage's folder, one for each side and hash bucket of
the id. The driver sees only their sizes and a histogram.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame, SparkSession

from embedmill.pipeline.prepare.engine.backpressure import LOCAL, Backpressure
from embedmill.pipeline.prepare.engine.frames import Batches, map_batches
from embedmill.pipeline.prepare.engine.spill_buffer import SpillBuffer
from embedmill.pipeline.prepare.engine.task_report import run_tasks, task_report
from embedmill.pipeline.prepare.histograms import id_counters, id_histogram
from embedmill.pipeline.prepare.vocabulary.scratch_files import ScratchFiles, scratch_path
from embedmill.pipeline.store.parquet import write_table
from embedmill.pipeline.store.storage import Storage
from embedmill.schemas.vocab import Histogram

__all__ = ["COUNTS", "SIDES", "IdCounts", "count_ids"]

SIDES = ("user", "item")
COUNTS = pa.schema([("id", pa.string()), ("n", pa.int64())])
_PARTIAL = pa.schema([("side", pa.int32()), *COUNTS])
_BUCKETED = _PARTIAL.append(pa.field("bucket", pa.int32()))
_CHUNK_ROWS = 1 << 18  # events that each task counts at once


@dataclass(frozen=True)
class IdCounts:
    """Counts of one round, and how many ids meet the minimum of their side.

    Attributes:
        scratch: the counts, in the tables "users" and "items" (schema COUNTS).
        minimum: least number of events of a user, and of an item.
        ids: number of ids that have events, by side.
        frequent: number of ids that meet the minimum, by side.
        events: number of events counted.
        histograms: see `histograms.id_histogram`, by side.
    """

    scratch: ScratchFiles
    minimum: tuple[int, int]
    ids: dict[str, int]
    frequent: dict[str, int]
    events: int
    histograms: dict[str, Histogram]

    @property
    def stable(self) -> bool:
        """Whether every id that has events meets its minimum."""
        return self.ids == self.frequent

    def frequent_ids(self, session: SparkSession, side: str) -> DataFrame:
        """The ids of a side that meet the minimum, with their counts (schema COUNTS)."""
        minimum = self.minimum[SIDES.index(side)]
        return self.all_ids(session, side).where(f"n >= {minimum}")

    def all_ids(self, session: SparkSession, side: str) -> DataFrame:
        """All ids of a side that have events, with their counts (schema COUNTS)."""
        return self.scratch.read(session, f"{side}s", COUNTS)


@dataclass(frozen=True)
class _Task:
    storage: Storage
    folder: str
    minimum: tuple[int, int]


def count_ids(
    events: DataFrame, storage: Storage, minimum: tuple[int, int], number: int, buckets: int
) -> IdCounts:
    """Count the events of each id.

    Args:
        events: columns user, item.
        storage: the stage's folder.
        minimum: least number of events of a user, and of an item.
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
    return IdCounts(
        ScratchFiles(storage, tuple(done.files)),
        minimum,
        {side: done.counts[f"{side}s"] for side in SIDES},
        {side: done.counts[f"{side}s_kept"] for side in SIDES},
        done.counts["events"],
        {side: id_histogram(done.counts, side) for side in SIDES},
    )


def _partials(backpressure: Backpressure, batches: Batches) -> Batches:
    """(side, id, count) of some hundred thousand events at a time."""
    return backpressure.throttle(_counted_by_chunk(batches))


def _counted_by_chunk(batches: Batches) -> Batches:
    chunk: list[pa.RecordBatch] = []
    rows = 0
    for batch in batches:
        chunk.append(batch)
        rows += batch.num_rows
        if rows >= _CHUNK_ROWS:
            yield from _count_chunk(chunk)
            chunk, rows = [], 0
    yield from _count_chunk(chunk)


def _count_chunk(chunk: list[pa.RecordBatch]) -> Batches:
    for number, side in enumerate(SIDES):
        ids = pa.chunked_array([b.column(b.schema.names.index(side)) for b in chunk], pa.string())
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
    """Write the scratch file of a side and bucket, sorted by id."""
    side, minimum = SIDES[key % 2], task.minimum[key % 2]
    summed = rows.group_by("id", use_threads=False).aggregate([("n", "sum")]).sort_by("id")
    table = pa.Table.from_arrays([summed["id"], summed["n_sum"]], schema=COUNTS)
    path = scratch_path(task.folder, f"{side}s", key // 2)
    entry = write_table(task.storage, path, table.combine_chunks())
    frequent = pc.sum(pc.greater_equal(table["n"], minimum)).as_py() or 0
    counts = {f"{side}s": table.num_rows, f"{side}s_kept": frequent}
    if side == "user":
        counts["events"] = pc.sum(table["n"]).as_py() or 0
    yield task_report(entry, counts | id_counters(side, table["id"], table["n"]))
