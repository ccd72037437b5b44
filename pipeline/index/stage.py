"""The index stage: build, write, read back, measure.

Files beside `items.faiss` and `ids.parquet` (row, id):

    spec.json     {kind, parameters, knob, metric, dim, items, bytes, estimate, sha256,
                   promise: null or {recall_at_10, max_bytes, max_latency_ms},
                   living: null, or see `carrying`, whose other files are then there too;
                   in shards, with files of these paths instead of `items.faiss`:
                   sha256: null, shards: [{path, items, bytes, sha256}]}
    recall.json   {k, queries, queries_from, "recall@10", knob, setting,
                   curve: [{setting, "recall@10"}],
                   promise: null or {recall_at_10, max_bytes, max_latency_ms, tuning_queries,
                   attempts, verified: {mean, low, high, queries, confidence, method},
                   frontier: [{kind, parameters, "recall@10", counted_us, bytes}]}}
    latency.json  {exact: {ms_per_query, ms_p99, bytes},
                   curve: [{parameter, value, chosen, "recall@10", ms_per_query, ms_p99, bytes}],
                   candidates: [{kind, parameters, verdict, expected_us,
                   estimated_bytes, bytes, estimated_seconds, seconds, ms_per_query}]}

The knob is what trades time for recall when searching ("ef_search"); `parameters` hold the
operating point, so that whoever loads the index searches it as it was measured. Where something
was promised, users are cut in two: the index is tuned with one half, and all that is told of
it was measured with the other. Latency is of single queries on one thread; it changes from run
to run and is left out of the content hash, recall is not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import faiss
import numpy as np
import pyarrow as pa

from embedmill.pipeline.config import IndexConfig
from embedmill.pipeline.index.contract import Floats, Rows, Searchable, threads
from embedmill.pipeline.index.incremental.carry_over import Kept, keep
from embedmill.pipeline.index.kinds import kind_of
from embedmill.pipeline.index.measure import (
    K,
    Latency,
    Truth,
    choose_users,
    exact_latency,
    halves,
    latency,
    recall,
    truth_of,
)
from embedmill.pipeline.index.selection.frontier import frontier
from embedmill.pipeline.index.selection.select import check_vectors, choose
from embedmill.pipeline.index.selection.selector import Choice
from embedmill.pipeline.index.sharded.build import Site, shards_of, spread
from embedmill.pipeline.index.sharded.files import IDS, exact_by_part, spread_json, write_ids
from embedmill.pipeline.index.sharded.task_pool import LAUNCHERS, Launchers
from embedmill.pipeline.log import Progress
from embedmill.pipeline.store.artifact import Artifact, Writer
from embedmill.pipeline.store.run import Run
from embedmill.pipeline.views.vectors import Spec, Vectors

__all__ = ["build"]


@dataclass(frozen=True)
class _Measured:
    """What was found with one setting of the knob."""

    setting: int
    recall: float
    milliseconds: float
    milliseconds_p99: float


def build(run: Run, out: Writer, progress: Progress, launchers: Launchers = LAUNCHERS) -> None:
    """Build the configured index over all live items, and measure it.

    Its places are those of live items by rising row; `ids.parquet` has the row of each. Where
    there are to be several shards, `launchers` start what builds them.

    Raises:
        ConfigError: no such kind, or parameters that do not fit the vectors.
        InputError: vectors that are not finite.
        PromiseError: no index keeps what the config promises.
    """
    config, export, shards = run.config.index, run.artifact("export"), run.artifact("shards")
    spec, items = Spec.of(export), Vectors.of(export, "items")
    if shards_of(config, items.count, items.dim) > 1:
        with launchers[config.launcher](config) as pool, threads(config.threads):
            site = Site(items, config, run.config.run.seed, pool, out, progress)
            _in_shards(site, _users(run, shards))
        return
    row_N = np.flatnonzero(items.live())
    with threads(config.threads):
        item_ND = items.load() if len(row_N) == items.count else items.gather(row_N)
        users = _users(run, shards)
        progress.update(0, len(row_N), "items")
        check_vectors(items=item_ND, users=users.verifying_BD)
        truth = truth_of(users.verifying_BD, item_ND)
        made = _kept(run, row_N, item_ND, truth, progress)
        made = made or _made(item_ND, users, config, run.config.run.seed, progress)
        progress.update(len(row_N), len(row_N), "items")
        size = _write(out, made, items, row_N)
        points = _curve(made.index, truth, item_ND, progress)
        exact = exact_latency(item_ND, truth)
    out.write_json("recall.json", _recall_json(made, truth, users, points))
    out.write_json("latency.json", _latency_json(made, points, exact, items, size), volatile=True)
    _commit(out, made, points[0], exact, {
        "items_in": spec.items, "not_live": spec.items - len(row_N),
        "queries": len(truth.query_BD),
        **(made.kept.living.carried.counters() if made.kept else {}),
    }, progress)  # fmt: skip


def _in_shards(site: Site, users: _Users) -> None:
    """The same in several files, without a look at all vectors at once."""
    items, out, progress = site.items, site.out, site.progress
    if site.config.carry_over:
        progress.note("built anew: an index in shards is not carried over")
    progress.update(0, items.count, "items")
    found = spread(site, users.tuning_BD, users.verifying_BD)
    progress.update(items.count, items.count, "items")
    made = _Made(found.kind, found.index, b"", found.catalogue.items, found.choice)
    write_ids(out, found.catalogue)
    out.add(found.entries)
    out.write_json("spec.json", spread_json(found))
    nothing = np.empty((0, items.dim), np.float32)  # the truth knows the scores
    points = _curve(made.index, found.verifying, nothing, progress)
    exact = exact_by_part(found.catalogue, found.verifying)
    out.write_json("recall.json", _recall_json(made, found.verifying, users, points))
    timed = _latency_json(made, points, exact, items, found.bytes)
    out.write_json("latency.json", timed, volatile=True)
    _commit(out, made, points[0], exact, {
        "items_in": items.count, "not_live": items.count - found.catalogue.items,
        "queries": len(found.verifying.query_BD),
    }, progress)  # fmt: skip


def _latency_json(
    made: _Made, points: list[_Measured], exact: Latency, items: Vectors, size: int
) -> dict[str, Any]:
    curve = [_point_json(made.index, p, size) for p in sorted(points, key=lambda p: p.setting)]
    raw = made.items * items.dim * 4
    exact_json = {"ms_per_query": exact.mean, "ms_p99": exact.p99, "bytes": raw}
    return {"exact": exact_json, "curve": curve, "candidates": made.candidates_json()}


def _commit(
    out: Writer,
    made: _Made,
    chosen: _Measured,
    exact: Latency,
    counters: dict[str, int],
    progress: Progress,
) -> None:
    progress.note(f"recall@{K} {chosen.recall:.4f}, {chosen.milliseconds:.3f} ms a query")
    out.commit(
        {**counters, "indexed": made.items},
        measured={
            "ms_per_query": chosen.milliseconds,
            "ms_p99": chosen.milliseconds_p99,
            "exact.ms_per_query": exact.mean,
        },
        software={"faiss": faiss.__version__},
    )


@dataclass(frozen=True)
class _Users:
    """Vectors of users to tune and to measure with, and the split they are from."""

    source: str
    tuning_BD: Floats
    verifying_BD: Floats


def _users(run: Run, shards: Artifact) -> _Users:
    """With a promise as many to tune with as to measure with; else none to tune with."""
    config, seed = run.config.index, run.config.run.seed
    vectors = Vectors.of(run.artifact("export"), "users")
    source, rows = choose_users(shards, config.queries * (2 if config.promised else 1), seed)
    tuning, verifying = halves(rows, seed) if config.promised else (rows[:0], rows)
    return _Users(source, vectors.gather(tuning), vectors.gather(verifying))


@dataclass(frozen=True)
class _Made:
    """The index, its bytes, and how it was chosen or what was kept.

    `choice` is there where something was promised, `kept` of an index that was carried over.
    """

    kind: str
    index: Searchable
    data: bytes
    items: int
    choice: Choice | None = None
    kept: Kept | None = None

    def candidates_json(self) -> list[dict[str, Any]]:
        """What became of every candidate."""
        choice = self.choice
        return [one.as_json(choice.slowness) for one in choice.candidates] if choice else []


def _made(
    item_ND: Floats, users: _Users, config: IndexConfig, seed: int, progress: Progress
) -> _Made:
    """As configured, or as a promise demands."""
    if config.promised:
        tuning_BD, verifying_BD = users.tuning_BD, users.verifying_BD
        choice = choose(item_ND, tuning_BD, verifying_BD, config, seed, progress)
        index = choice.index
        return _Made(choice.kind, index, index.save(), index.engine.ntotal, choice)
    kind, (items, dim) = kind_of(config.kind), item_ND.shape
    index = kind.build(item_ND, kind.plan(items, dim, config), seed)
    return _Made(config.kind, index, index.save(), index.engine.ntotal)


def _kept(run: Run, row_N: Rows, item_ND: Floats, truth: Truth, progress: Progress) -> _Made | None:
    """What was carried over, None where all is to be built anew."""
    if not run.config.index.carry_over:
        return None
    found = keep(run, row_N, item_ND, truth)
    if isinstance(found, str):
        progress.note(f"built anew: {found}")
        return None
    return _Made(found.kind, found.living, found.data, found.living.items, kept=found)


def _write(out: Writer, made: _Made, items: Vectors, row_N: Rows) -> int:
    """Write index, ids and spec; returns the bytes of the index."""
    index, kept, choice = made.index, made.kept, made.choice
    out.write("items.faiss", made.data)
    living = kept.write(out, row_N) if kept else None
    promise = choice.promise if choice else kept.promise if kept else None
    size = len(made.data) + (living["delta_bytes"] if living else 0)
    out.write_table(
        "ids.parquet", pa.table([pa.array(row_N), pa.array(items.ids(row_N))], schema=IDS)
    )
    out.write_json(
        "spec.json",
        {
            "kind": made.kind,
            "parameters": index.parameters,
            "knob": index.knob,
            "metric": "inner_product",
            "dim": items.dim,
            "items": len(row_N),
            "bytes": size,
            "estimate": kind_of(made.kind).estimate(len(row_N), items.dim, index.parameters),
            "sha256": next(e.sha256 for e in out.entries if e.path == "items.faiss"),
            "promise": promise.as_json() if promise else None,
            "living": living,
        },
    )
    return size


def _curve(index: Searchable, truth: Truth, item_ND: Floats, progress: Progress) -> list[_Measured]:
    """What was planned first, then every other setting of the knob."""
    planned = index.parameters.get(index.knob, 0)
    settings = [planned, *(s for s in index.settings() if s != planned)]
    found = []
    for done, setting in enumerate(settings, 1):
        taken = latency(index, truth, setting)
        found.append(
            _Measured(setting, recall(index, truth, item_ND, setting), taken.mean, taken.p99)
        )
        progress.update(done, len(settings), "settings")
    return found


def _recall_json(
    made: _Made, truth: Truth, users: _Users, points: list[_Measured]
) -> dict[str, Any]:
    index, rising = made.index, sorted(points, key=lambda p: p.setting)
    return {
        "k": truth.k,
        "queries": len(truth.query_BD),
        "queries_from": users.source,
        f"recall@{K}": points[0].recall,
        "knob": index.knob,
        "setting": points[0].setting,
        "curve": [{"setting": p.setting, f"recall@{K}": p.recall} for p in rising],
        "promise": _promise_json(made, len(users.tuning_BD)),
    }


def _promise_json(made: _Made, tuning: int) -> dict[str, Any] | None:
    choice = made.choice
    if choice is None:
        return made.kept.promise_json() if made.kept else None
    return {
        **choice.promise.as_json(),
        "tuning_queries": tuning,
        "attempts": choice.attempts,
        "verified": choice.verified.as_json(),
        "frontier": [
            {
                "kind": one.plan.kind,
                "parameters": dict(point.parameters),
                f"recall@{K}": point.recall,
                "counted_us": round(point.microseconds, 3),
                "bytes": one.bytes,
            }
            for one, point in frontier(choice.candidates)
        ],
    }


def _point_json(index: Searchable, point: _Measured, size: int) -> dict[str, Any]:
    return {
        "parameter": index.knob or "exact",
        "value": point.setting if index.knob else None,
        "chosen": point.setting == index.parameters.get(index.knob, 0),
        f"recall@{K}": point.recall,
        "ms_per_query": point.milliseconds,
        "ms_p99": point.milliseconds_p99,
        "bytes": size,
    }
