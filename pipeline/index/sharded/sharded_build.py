"""A catalogue that does not fit into memory: an index selected by a sample, built in shards.

    sample   by a hash, while every vector is checked once
    truth    exact answers to users' queries, file by file
    select   as for one file, by trials over the sample; selected plans are built in shards
    tune     over all items, with the shards mapped into memory

The driver holds the sample, the queries and the centroids; nothing in it grows with the number of
items.

Legend: B queries, D coordinates.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import faiss
import numpy as np
import pyarrow.parquet as pq

from embedmill.pipeline.config import IndexConfig
from embedmill.pipeline.errors import ContractError
from embedmill.pipeline.index.built_index import BuildTask, BuiltIndex
from embedmill.pipeline.index.incremental.carry_over import Rebuild, carry_over
from embedmill.pipeline.index.kinds import AUTO, INDEXES, kind_of
from embedmill.pipeline.index.measure import K
from embedmill.pipeline.index.selection.choose import select_among
from embedmill.pipeline.index.selection.plans import Plan, PlanSet, all_plans, feasible_plans
from embedmill.pipeline.index.selection.selector import Selection, SelectionTask
from embedmill.pipeline.index.selection.targets import Targets
from embedmill.pipeline.index.sharded.filewise_truth import (
    FilewiseTruth,
    exact_latency_by_file,
    filewise_truths,
)
from embedmill.pipeline.index.sharded.kmeans import TRAINING_ITEMS_PER_LIST
from embedmill.pipeline.index.sharded.shard_groups import group_files
from embedmill.pipeline.index.sharded.shard_tasks import (
    TRAINING_ITEMS,
    ShardSettings,
    build_shards,
    inverted_kind,
    train_empty_index,
)
from embedmill.pipeline.index.sharded.sharded_index import ShardedIndex, open_shards
from embedmill.pipeline.index.sharded.stored_sample import StoredSample, sample_items
from embedmill.pipeline.index.vector_checks import check_vectors
from embedmill.pipeline.store.artifact_writer import Writer, entry_of
from embedmill.pipeline.store.run import Run
from embedmill.pipeline.store.storage import Storage
from embedmill.pipeline.task_pool import TaskPool
from embedmill.pipeline.views.vectors import LiveFile, LiveVectors
from embedmill.schemas.export import ROWS_PER_FILE
from embedmill.schemas.index import IDS, IDS_FILE, ShardSpec
from embedmill.schemas.manifest import FileEntry

__all__ = ["build_sharded", "shard_count"]

# With index.kind = "auto", plans are left out that would take more than so many times as long to
# build as the fastest that is not exact.
_TOO_SLOW = 8.0


def shard_count(config: IndexConfig, items: int, dim: int) -> int:
    """Number of shards of an index over so many rows of items; pure."""
    wanted = config.shards or -(-items * dim * 4 // config.shard_bytes)
    return max(1, min(wanted, -(-items // ROWS_PER_FILE)))


def build_sharded(task: BuildTask, pool: TaskPool, run: Run) -> BuiltIndex:
    """Carry over the index of the previous run, or select or build one in shards; write its files.

    Raises:
        ConfigError: parameters that do not fit the vectors.
        InputError: no items, or numbers that are not finite.
        IndexTargetError: nothing meets the targets.
        MachineError: a worker ended, or the disk is full.
    """
    config, progress, live_items = task.config, task.progress, LiveVectors.of(task.items)
    progress.update(0, task.items.count, "items")
    # `sample_items` checks that items are finite; here, that there are any, and the dimension.
    one_1D = np.zeros((min(1, live_items.items), live_items.dim), np.float32)
    check_vectors(items=one_1D, tuning=task.tuning_BD, verifying=task.verifying_BD)
    carried = _carried(task, pool, run, live_items) if config.carry_over else None
    if carried is not None:
        return carried
    groups = group_files(live_items.files, shard_count(config, task.items.count, live_items.dim))
    plans = _plans(config, live_items, groups)
    with _scratch_folder(task.out) as scratch:
        sample = sample_items(live_items, pool, _sample_size(plans), task.seed, scratch)
        builder = _ShardBuilder(task, pool, live_items, groups, sample)
        try:
            if config.has_targets:
                built = _select(builder, plans)
            else:
                (truth,) = filewise_truths(live_items, pool, [task.verifying_BD], K)
                built = builder.finish(plans[0], builder.build(plans[0])[0], truth)
        except BaseException:
            builder.remove_all_but(None)
            raise
    progress.update(task.items.count, task.items.count, "items")
    return built


def _carried(
    task: BuildTask, pool: TaskPool, run: Run, live_items: LiveVectors
) -> BuiltIndex | None:
    """The index of the previous run with changed items in a delta; None if it is not kept."""
    row_N, items = np.flatnonzero(task.items.live()), task.items
    (truth,) = filewise_truths(live_items, pool, [task.verifying_BD], K)
    found = carry_over(run, row_N, lambda at: items.gather(row_N[at]), truth, sharded=True)
    if isinstance(found, Rebuild):
        task.progress.note(f"built anew: {found.reason}")
        return None
    found.take_shards(task.out)
    incremental = found.write(task.out, row_N)
    _write_ids(task.out, live_items)
    task.progress.update(items.count, items.count, "items")
    return BuiltIndex(
        kind=found.kind,
        index=found.index,
        bytes=found.base_bytes + incremental.delta_bytes,
        estimate=found.before.spec.estimate,
        truth=truth,
        exact=exact_latency_by_file(live_items, truth),
        shards=found.shards,
        carried=found,
        incremental=incremental,
    )


@dataclass
class _ShardBuilder:
    """Builds plans in shards; remembers the files of each."""

    task: BuildTask
    pool: TaskPool
    live_items: LiveVectors
    groups: list[tuple[LiveFile, ...]]
    sample: StoredSample
    entries: dict[tuple[str, int], list[FileEntry]] = field(default_factory=dict)

    def build(self, plan: Plan) -> tuple[ShardedIndex, int]:
        """Build a plan and open it; the index and its bytes."""
        task, scratch, storage = self.task, self.sample.scratch, self.task.out.storage
        settings = ShardSettings(task.items, plan, task.seed, scratch, storage)
        kind = inverted_kind(plan.kind)
        if kind is not None:
            empty = train_empty_index(kind, plan.parameters, task.seed, self.sample, self.pool)
            settings = replace(settings, empty_index=f"empty-{plan.kind}-{plan.number}.faiss")
            scratch.write(settings.empty_index, faiss.serialize_index(empty).tobytes())
        entries = build_shards(settings, self.groups, self.pool)
        self.entries[plan.key] = entries
        paths = [entry.path for entry in entries]
        index = open_shards(storage, plan.kind, plan.parameters, paths)
        return index, sum(entry.bytes for entry in entries)

    def finish(
        self,
        plan: Plan,
        index: ShardedIndex,
        truth: FilewiseTruth,
        selection: Selection[ShardedIndex] | None = None,
    ) -> BuiltIndex:
        """Add the files of a plan to the artifact, with the ids; remove those of other plans."""
        self.remove_all_but(plan)
        entries = self.entries[plan.key]
        _write_ids(self.task.out, self.live_items)
        self.task.out.add(entries)
        shards = [
            ShardSpec(path=entry.path, items=shard.items, bytes=entry.bytes, sha256=entry.sha256)
            for entry, shard in zip(entries, index.shards, strict=True)
        ]
        return BuiltIndex(
            kind=plan.kind,
            index=index,
            bytes=sum(entry.bytes for entry in entries),
            estimate=plan.bytes,
            truth=truth,
            exact=exact_latency_by_file(self.live_items, truth),
            shards=shards,
            selection=selection,
        )

    def remove_all_but(self, plan: Plan | None) -> None:
        """Remove the files of all plans, or of all but one."""
        for key, entries in self.entries.items():
            for entry in entries if plan is None or key != plan.key else ():
                self.task.out.storage.remove(entry.path)


def _select(builder: _ShardBuilder, plans: list[Plan]) -> BuiltIndex:
    """The index selected to meet the targets."""
    task, live_items = builder.task, builder.live_items
    config, targets, queries = task.config, Targets.of(task.config), len(task.verifying_BD)
    feasible = feasible_plans(plans, targets, queries, live_items.items, live_items.dim)
    too_slow = _too_slow(feasible, config)
    plan_set = PlanSet(plans, [plan for plan in feasible if plan not in too_slow], too_slow)
    query_sets = [task.tuning_BD, task.verifying_BD]
    tuning, verifying = filewise_truths(live_items, builder.pool, query_sets, K)
    # In a large catalogue another kind is built only where the first one fails, not to be a
    # little faster.
    selection_task = SelectionTask(tuning, verifying, targets, builder.build, max_cost_ratio=0.0)
    sample_ND = builder.sample.lowest(TRAINING_ITEMS)
    selection = select_among(
        plan_set, sample_ND, live_items.items, selection_task, config, task.progress
    )
    return builder.finish(selection.plan, selection.index, verifying, selection)


def _plans(
    config: IndexConfig, live_items: LiveVectors, groups: Sequence[tuple[LiveFile, ...]]
) -> list[Plan]:
    """The candidates, or the configured plan where there are no targets; bytes of all shards."""
    items, dim = live_items.items, live_items.dim
    if config.has_targets:
        plans = all_plans(items, dim, config)
    else:
        kind = kind_of(config.kind)
        parameters = kind.plan(items, dim, config)
        plans = [Plan(config.kind, 0, parameters, 0, kind.build_seconds(items, dim, parameters))]
    sizes = [sum(file.items for file in group) for group in groups]
    return [replace(plan, bytes=_bytes_of_shards(plan, sizes, dim)) for plan in plans]


def _bytes_of_shards(plan: Plan, sizes: Sequence[int], dim: int) -> int:
    kind = INDEXES[plan.kind]
    return round(sum(kind.estimate_bytes(items, dim, plan.parameters) for items in sizes))


def _sample_size(plans: Sequence[Plan]) -> int:
    """Items to sample: enough for the plan with the most lists, and for codes."""
    lists = max(plan.parameters.get("lists", 0) for plan in plans)
    return max(TRAINING_ITEMS, lists * TRAINING_ITEMS_PER_LIST)


def _too_slow(plans: Sequence[Plan], config: IndexConfig) -> list[Plan]:
    """Plans that are left out for the time they would take to build."""
    seconds = [plan.build_seconds for plan in plans if not INDEXES[plan.kind].exact]
    if config.kind != AUTO or not seconds:
        return []
    return [plan for plan in plans if plan.build_seconds > _TOO_SLOW * min(seconds)]


def _write_ids(out: Writer, live_items: LiveVectors) -> None:
    """Row and raw id of every item by position, written file by file."""
    rows = 0
    with (
        out.storage.writer(IDS_FILE) as raw,
        pq.ParquetWriter(raw, IDS, compression="zstd") as ids,
    ):
        for file in live_items.files:
            table = live_items.read_ids(file)
            ids.write_table(table.cast(IDS))
            rows += len(table)
    out.add([entry_of(IDS_FILE, raw, rows)])
    if rows != live_items.items:
        raise ContractError(
            f"names {rows:,} items, the index holds {live_items.items:,}",
            where=out.storage.url(IDS_FILE),
            todo="This is a bug; nothing was committed",
        )


@contextmanager
def _scratch_folder(out: Writer) -> Iterator[Storage]:
    """A folder for files that tasks share, removed afterwards."""
    scratch = out.storage.at("scratch")
    scratch.clear()
    try:
        yield scratch
    finally:
        scratch.clear()
