"""Outcomes of ids in an incremental vocabulary: which ids have a row, and which row.

An incremental vocabulary keeps the rows of a base vocabulary, or has rows that ids share, or
both. An id that has its minimum count in this run is live. So is an id of the base that has
events and last had its minimum count at most `retire_after` runs ago. All other ids of the base
are retired: they keep their rows, without events. New live ids get the next rows. Every other id
is out of the vocabulary.

All that is known of an id meets in the task of its hash bucket, which decides the outcome and
writes the rows to scratch files. The driver sees counts.
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
from embedmill.pipeline.prepare.engine.task_report import TaskResults, run_tasks, task_report
from embedmill.pipeline.prepare.vocabulary.id_counts import COUNTS
from embedmill.pipeline.prepare.vocabulary.row_numbers import (
    ROWS,
    assign_rows,
    with_file_number,
    write_rows,
)
from embedmill.pipeline.prepare.vocabulary.scratch_files import ScratchFiles, scratch_path
from embedmill.pipeline.prepare.vocabulary.shared_rows import is_shared_sql, shared_slot_sql
from embedmill.pipeline.store.artifact import Artifact
from embedmill.pipeline.store.parquet import write_table
from embedmill.pipeline.store.storage import Storage
from embedmill.pipeline.views.vocab import Vocab
from embedmill.schemas.vocab import SideRows, forgotten_counter

__all__ = [
    "IdEvidence",
    "IdOutcomes",
    "OutcomeRules",
    "decide_outcomes",
    "forgotten_rows",
    "retained_ids",
    "write_outcomes",
]

_BASE = pa.schema(
    [("id", pa.string()), ("row", pa.int64()), ("missed", pa.int32()), ("live", pa.bool_())]
)
# What one source knows of an id; null in the columns that it does not know.
_EVIDENCE = pa.schema(
    [
        ("id", pa.string()),
        ("row", pa.int64()),
        ("missed", pa.int32()),
        ("was_live", pa.int32()),
        ("n", pa.int64()),
        ("frequent", pa.int32()),
        ("slot", pa.int32()),
        ("bucket", pa.int32()),
    ]
)
_SLOTS = pa.schema([("slot", pa.int64()), ("n", pa.int64())])
# Scratch files by outcome: rows of ids of the base, new ids, counts of ids that share a row.
_SCRATCH = {"known": ROWS, "new": COUNTS, "shared": _SLOTS}


@dataclass(frozen=True)
class OutcomeRules:
    """How outcomes are decided.

    Attributes:
        retire_after: number of runs in a row below its minimum that leave an id live.
        shared_rows: rows for the ids that are out of the vocabulary; 0 for none.
        seed: of the hash that gives these ids their rows.
        buckets: hash buckets of ids.
    """

    retire_after: int
    shared_rows: int
    seed: int
    buckets: int


@dataclass(frozen=True)
class IdEvidence:
    """What is known of the ids of a side.

    Attributes:
        counts: columns id, n: the events that an id has if it is live.
        frequent: column id: ids that have their minimum count.
        base: the base vocabulary, or None.
    """

    counts: DataFrame
    frequent: DataFrame
    base: Artifact | None


@dataclass(frozen=True)
class IdOutcomes:
    """The outcomes of the ids of a side, in a scratch table for each, and their numbers.

    `counts` are `live` (of them `new`, and `back` after having been retired), `retired` (of them
    `gone`, which were live in the base), and `below_minimum` (ids of the base below their
    minimum that are not retired for it yet).
    """

    scratch: ScratchFiles
    counts: Counter[str]

    def rows(self, session: SparkSession, outcome: str) -> DataFrame:
        """The rows of an outcome, a key of _SCRATCH."""
        return self.scratch.read(session, outcome, _SCRATCH[outcome])


@dataclass(frozen=True)
class _Task:
    storage: Storage
    folder: str
    rules: OutcomeRules


def retained_ids(
    session: SparkSession, base: Artifact, frequent: DataFrame, side: str, retire_after: int
) -> DataFrame:
    """Ids that may have events in this run, some of them twice.

    These are the ids that have their minimum count, and ids of the base that had it at most
    `retire_after` runs ago.

    Args:
        session: the engine's session.
        base: the base vocabulary.
        frequent: column id: ids that have their minimum count.
        side: "user" or "item"; also the name of the column returned.
        retire_after: see OutcomeRules.
    """
    known = _base_ids(session, base, side).where(f"missed < {retire_after}")
    return frequent.selectExpr(f"id as {side}").union(known.selectExpr(f"id as {side}"))


def decide_outcomes(
    session: SparkSession, side: str, evidence: IdEvidence, rules: OutcomeRules, storage: Storage
) -> IdOutcomes:
    """Decide the outcome of every id of a side.

    Args:
        session: the engine's session.
        side: "user" or "item".
        evidence: what is known of the ids.
        rules: how outcomes are decided.
        storage: the stage's folder, below which scratch files are written.
    """
    slot = None
    if rules.shared_rows:
        slot = f"cast({shared_slot_sql('id', rules.seed, rules.shared_rows)} as int)"
    known = _evidence(evidence.counts, n="n", slot=slot)
    known = known.union(_evidence(evidence.frequent, frequent="1"))
    if evidence.base is not None:
        base = _base_ids(session, evidence.base, side)
        columns = {"row": "row", "missed": "missed", "was_live": "cast(live as int)"}
        known = known.union(_evidence(base, **columns))
    task = _Task(storage, f"scratch/outcomes-{side}s", rules)
    bucketed = known.selectExpr("*", f"cast(pmod(xxhash64(id), {rules.buckets}) as int) as bucket")
    done = run_tasks(bucketed.repartition(rules.buckets, "bucket"), partial(_decide, task))
    return IdOutcomes(ScratchFiles(storage, tuple(done.files)), done.counts)


def forgotten_rows(
    session: SparkSession, base: Artifact, side: str, shared: SideRows
) -> DataFrame | None:
    """The rows (schema ROWS) of the base whose ids were forgotten; None where there are none.

    They have no id and are given to nobody: a row means one id for ever.

    Args:
        session: the engine's session.
        base: the base vocabulary.
        side: "user" or "item".
        shared: the rows of the side, with its shared rows, which have no id either.
    """
    if not base.counters.get(forgotten_counter(f"{side}s")):
        return None
    ids = read_parquet(session, base.storage, Vocab(base).files(f"{side}s"), _BASE)
    return ids.where(f"id is null and not {is_shared_sql(shared, 'row')}").selectExpr(
        "row", "cast(null as string) as id", "cast(0 as bigint) as n", "missed"
    )


def write_outcomes(
    session: SparkSession,
    side: str,
    outcomes: IdOutcomes,
    rows: SideRows,
    first_new: int,
    forgotten: DataFrame | None = None,
) -> TaskResults:
    """Write the vocabulary of a side; see `write_rows`.

    Args:
        session: the engine's session.
        side: "user" or "item".
        outcomes: of the ids of the side.
        rows: rows of the vocabulary to write.
        first_new: the row of the first new id.
        forgotten: of `forgotten_rows`.
    """
    numbered = with_file_number(outcomes.rows(session, "known"))
    if forgotten is not None:
        numbered = numbered.union(with_file_number(forgotten))
    if outcomes.counts["new"]:
        new = outcomes.rows(session, "new")
        numbered = numbered.union(assign_rows(new, outcomes.counts["new"], first_new))
    if rows.shared:
        numbered = numbered.union(with_file_number(_shared_rows(session, outcomes, rows)))
    return write_rows(numbered, rows.total, outcomes.scratch.storage, side)


def _shared_rows(session: SparkSession, outcomes: IdOutcomes, rows: SideRows) -> DataFrame:
    """The shared rows (schema ROWS), with the events of all ids that have them."""
    slots = pa.array(range(rows.shared), pa.int64())
    without_events = pa.table([slots, np.zeros(rows.shared, np.int64)], schema=_SLOTS)
    counts = distribute(session, without_events, "slot", 1).union(outcomes.rows(session, "shared"))
    summed = counts.groupBy("slot").sum("n").withColumnRenamed("sum(n)", "n")
    return summed.selectExpr(
        f"slot + {rows.shared_from} as row",
        "cast(null as string) as id",
        "n",
        "cast(0 as int) as missed",
    )


def _base_ids(session: SparkSession, base: Artifact, side: str) -> DataFrame:
    ids = read_parquet(session, base.storage, Vocab(base).files(f"{side}s"), _BASE)
    return ids.where("id is not null")


def _evidence(ids: DataFrame, **columns: str | None) -> DataFrame:
    """The columns of _EVIDENCE but for the bucket, from SQL; those that are not given are null."""
    types = {"int64": "bigint", "int32": "int"}
    casts = [
        f"cast({columns.get(f.name) or 'null'} as {types[str(f.type)]}) as {f.name}"
        for f in _EVIDENCE
        if f.name not in ("id", "bucket")
    ]
    return ids.selectExpr("id", *casts)


def _decide(task: _Task, batches: Batches) -> Batches:
    buffer = SpillBuffer.from_batches(batches, _EVIDENCE)
    yield from buffer.drain_groups("bucket", partial(_decide_bucket, task))


def _decide_bucket(task: _Task, number: int, rows: pa.Table) -> Batches:
    """Write the scratch files of a bucket, each sorted by id."""
    names = [f.name for f in _EVIDENCE if f.name not in ("id", "bucket")]
    ids = rows.group_by("id", use_threads=False).aggregate([(name, "max") for name in names])
    ids = ids.sort_by("id")
    row, missed, was_live, n, frequent, slot = (
        ids[f"{name}_max"].fill_null(-1).to_numpy() for name in names
    )
    known, frequent, n = row >= 0, frequent > 0, np.maximum(n, 0)
    missed = np.where(frequent, 0, missed + 1)
    below_minimum = known & ~frequent & (missed <= task.rules.retire_after)
    live = (n > 0) & (frequent | below_minimum)
    new, shares_row = live & ~known, (n > 0) & ~live
    counts = {
        "live": int(live.sum()),
        "new": int(new.sum()),
        "back": int((live & known & (was_live == 0)).sum()),
        "retired": int((known & ~live).sum()),
        "gone": int((known & ~live & (was_live == 1)).sum()),
        "below_minimum": int(below_minimum.sum()),
    }
    outcomes = {
        "known": (pa.table([row, ids["id"], np.where(live, n, 0), missed], schema=ROWS), known),
        "new": (pa.table([ids["id"], n], schema=COUNTS), new),
    }
    if task.rules.shared_rows:
        outcomes["shared"] = (pa.table([slot, n], schema=_SLOTS), shares_row)
    for outcome, (table, chosen) in outcomes.items():
        if chosen.any():
            path = scratch_path(task.folder, outcome, number)
            selected = table.filter(pa.array(chosen)).combine_chunks()
            yield task_report(write_table(task.storage, path, selected), {})
    yield task_report(None, counts)
