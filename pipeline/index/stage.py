"""The index stage: build the index, write it, and measure it.

The files are described in `embedmill.schemas.index`. The spec holds the operating point, so that
whoever loads the index searches it as it was measured. Where the config has targets, users are
split in two halves: the index is tuned with one, and measured with the other. Latency is that of
single queries on one thread; it changes from run to run and is not in the content hash, recall is.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import faiss

from embedmill.pipeline.index.built_index import BuildTask, BuiltIndex
from embedmill.pipeline.index.faiss_threads import faiss_threads
from embedmill.pipeline.index.measure import K, MeasuredSetting, latency, recall
from embedmill.pipeline.index.query_users import choose_query_users, split_in_half
from embedmill.pipeline.index.searchable import Floats
from embedmill.pipeline.index.selection.candidates import frontier
from embedmill.pipeline.index.sharded.sharded_build import build_sharded, shard_count
from embedmill.pipeline.index.whole_build import build_whole
from embedmill.pipeline.log import Progress, Quiet
from embedmill.pipeline.store.artifact_writer import Writer
from embedmill.pipeline.store.run import Run
from embedmill.pipeline.task_pool import LAUNCHERS, Launchers, TaskRequest
from embedmill.pipeline.views.shards import Shards
from embedmill.pipeline.views.vectors import Vectors
from embedmill.schemas.index import (
    LATENCY,
    RECALL,
    SPEC,
    CurvePoint,
    FrontierPoint,
    IndexLatency,
    IndexRecall,
    IndexSpec,
    LatencyPoint,
    SearchCost,
    VerifiedTarget,
)
from embedmill.schemas.manifest import FileEntry

__all__ = ["build"]


def build(run: Run, out: Writer, progress: Progress, launchers: Launchers = LAUNCHERS) -> None:
    """Build the configured index over all live items, and measure it.

    Positions of the index are those of live items by rising row; the file of ids has the row and id
    of each.

    Args:
        run: its config, exported vectors, and held-out events.
        out: the index artifact.
        progress: is told of items and settings.
        launchers: start the workers that build several shards, or the one of "ray" a task that
            builds one file on a node of a cluster.

    Raises:
        ConfigError: no such kind, or parameters that do not fit the vectors.
        InputError: vectors that are not finite.
        IndexTargetError: no index meets the targets of the config.
        MachineError: a worker ended.
    """
    config, items = run.config.index, Vectors.of(run.artifact("export"), "items")
    sharded = shard_count(config, items.count, items.dim) > 1
    if config.launcher == "ray" and not sharded:
        # One task, as large as a build here: of all cores of its node, or of the threads asked for.
        request = TaskRequest("index", 1, cpus=max(1, config.threads))
        bare = replace(out, entries=[], gauges=[], driver=None)
        with launchers["ray"](request) as pool:
            (finished,) = pool.map(_build_there, [_NodeTask(run, bare)])
        out.add(finished.files)
        for note in finished.notes:
            progress.note(note)
    else:
        finished = _build_here(run, out, progress, launchers)
    out.commit(finished.counters, finished.measured, {"faiss": faiss.__version__})


@dataclass(frozen=True)
class _NodeTask:
    """Build the one file of an index on a node, and write it there."""

    run: Run
    out: Writer


@dataclass(frozen=True)
class _Finished:
    """What is committed of an index whose files have been written."""

    counters: dict[str, int]
    measured: dict[str, float]
    files: tuple[FileEntry, ...] = ()
    notes: tuple[str, ...] = ()


class _Notes(Quiet):
    """Keeps what is said, for the process that waits."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        """Keep it."""
        self.notes.append(text)


def _build_there(task: _NodeTask) -> _Finished:
    """In a task: as `_build_here`; the driver takes the files in."""
    progress = _Notes()
    finished = _build_here(task.run, task.out, progress, LAUNCHERS)
    return replace(finished, files=tuple(task.out.entries), notes=tuple(progress.notes))


def _build_here(run: Run, out: Writer, progress: Progress, launchers: Launchers) -> _Finished:
    """Build, measure and write an index. Args and errors as of `build`."""
    config, items = run.config.index, Vectors.of(run.artifact("export"), "items")
    with faiss_threads(config.threads):
        queries = _queries(run)
        task = BuildTask(
            items, config, run.config.run.seed, queries.tuning_BD, queries.verifying_BD, out,
            progress,
        )  # fmt: skip
        if shard_count(config, items.count, items.dim) > 1:
            request = TaskRequest("index", config.workers, todo="index.shard_bytes")
            with launchers[config.launcher](request) as pool:
                built = build_sharded(task, pool, run)
        else:
            built = build_whole(task, run)
        settings = _measure_settings(built, progress)
    out.write_json(SPEC, _spec(built, items.dim))
    out.write_json(RECALL, _recall(built, settings, queries))
    out.write_json(LATENCY, _latency(built, settings, items.dim))
    planned = settings[0]
    progress.note(f"recall@{K} {planned.recall:.4f}, {planned.latency.mean:.3f} ms a query")
    indexed = built.index.items
    return _Finished(
        {
            "items_in": items.count,
            "not_live": items.count - indexed,
            "queries": len(built.truth.query_BD),
            **built.counters(),
            "indexed": indexed,
        },
        {
            "ms_per_query": planned.latency.mean,
            "ms_p99": planned.latency.p99,
            "exact.ms_per_query": built.exact.mean,
        },
    )


@dataclass(frozen=True)
class _Queries:
    """Vectors of users to tune and to measure with, float32 [B, D], and their split."""

    split: str
    tuning_BD: Floats
    verifying_BD: Floats


def _queries(run: Run) -> _Queries:
    """With targets, as many users to tune with as to measure with; else none to tune with."""
    config, seed = run.config.index, run.config.run.seed
    wanted = config.queries * (2 if config.has_targets else 1)
    split, rows = choose_query_users(Shards(run.artifact("shards")), wanted, seed)
    tuning, verifying = split_in_half(rows, seed) if config.has_targets else (rows[:0], rows)
    users = Vectors.of(run.artifact("export"), "users")
    return _Queries(split, users.gather(tuning), users.gather(verifying))


def _measure_settings(built: BuiltIndex, progress: Progress) -> list[MeasuredSetting]:
    """Recall and latency with the planned setting first, then with every other."""
    index, truth = built.index, built.truth
    planned = index.parameters.get(index.search_parameter, 0)
    settings = [planned, *(s for s in index.settings() if s != planned)]
    measured = []
    for done, setting in enumerate(settings, 1):
        taken = latency(index, truth, setting)
        measured.append(MeasuredSetting(setting, recall(index, truth, setting), taken))
        progress.update(done, len(settings), "settings")
    return measured


def _spec(built: BuiltIndex, dim: int) -> IndexSpec:
    index, targets = built.index, built.targets
    return IndexSpec(
        kind=built.kind,
        parameters=index.parameters,
        search_parameter=index.search_parameter,
        metric="inner_product",
        dim=dim,
        items=index.items,
        bytes=built.bytes,
        estimate=built.estimate,
        sha256=built.sha256,
        shards=built.shards,
        target=targets.stored() if targets else None,
        incremental=built.incremental,
    )


def _recall(built: BuiltIndex, settings: list[MeasuredSetting], queries: _Queries) -> IndexRecall:
    planned, rising = settings[0], sorted(settings, key=lambda s: s.setting)
    return IndexRecall(
        k=built.truth.k,
        queries=len(built.truth.query_BD),
        queries_from=queries.split,
        recall=planned.recall,
        search_parameter=built.index.search_parameter,
        setting=planned.setting,
        curve=[CurvePoint(setting=s.setting, recall=s.recall) for s in rising],
        target=_verified_target(built, len(queries.tuning_BD)),
    )


def _verified_target(built: BuiltIndex, tuning_queries: int) -> VerifiedTarget | None:
    """The targets and how they were met; None where the config has none."""
    selection = built.selection
    if selection is None:
        return built.carried.verified_target() if built.carried else None
    return VerifiedTarget(
        **selection.targets.stored().as_json(),
        tuning_queries=tuning_queries,
        attempts=selection.attempts,
        verified=selection.verified.stored(),
        frontier=[
            FrontierPoint(
                kind=candidate.plan.kind,
                parameters=dict(point.parameters),
                recall=point.recall,
                counted_us=round(point.cost_us, 3),
                bytes=candidate.bytes or 0,
            )
            for candidate, point in frontier(selection.candidates)
        ],
    )


def _latency(built: BuiltIndex, settings: list[MeasuredSetting], dim: int) -> IndexLatency:
    index, selection, exact = built.index, built.selection, built.exact
    parameter, raw_bytes = index.search_parameter, index.items * dim * 4
    return IndexLatency(
        exact=SearchCost(ms_per_query=exact.mean, ms_p99=exact.p99, bytes=raw_bytes),
        curve=[
            LatencyPoint(
                parameter=parameter or "exact",
                value=one.setting if parameter else None,
                chosen=one.setting == index.parameters.get(parameter, 0),
                recall=one.recall,
                ms_per_query=one.latency.mean,
                ms_p99=one.latency.p99,
                bytes=built.bytes,
            )
            for one in sorted(settings, key=lambda s: s.setting)
        ],
        candidates=[
            candidate.stored(selection.slowdown) for candidate in selection.candidates
        ] if selection else [],
    )  # fmt: skip
