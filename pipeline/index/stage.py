"""The index stage: build, write, read back, measure.

Files beside `items.faiss` and `ids.parquet` (row, id):

    spec.json     {kind, parameters, knob, metric, dim, items, bytes, estimate, sha256}
    recall.json   {k, queries, queries_from, "recall@10", knob, setting,
                   curve: [{setting, "recall@10"}]}
    latency.json  {exact: {ms_per_query, ms_p99, bytes},
                   curve: [{parameter, value, chosen, "recall@10", ms_per_query, ms_p99, bytes}]}

The knob is what trades time for recall when searching ("ef_search"). Latency is of single
queries on one thread; it changes from run to run and is left out of the content hash, recall
is not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import faiss
import numpy as np
import pyarrow as pa

from pipeline.artifact import Writer
from pipeline.embeddings import Spec, Vectors
from pipeline.index.contract import Floats, Index, Rows, threads
from pipeline.index.kinds import kind_of
from pipeline.index.measure import K, Truth, choose_users, exact_latency, latency, recall, truth_of
from pipeline.log import Progress
from pipeline.run import Run

__all__ = ["build"]

_IDS = pa.schema(
    [pa.field("row", pa.int64(), nullable=False), pa.field("id", pa.string(), nullable=False)]
)


@dataclass(frozen=True)
class _Measured:
    """What was found with one setting of the knob."""

    setting: int
    recall: float
    milliseconds: float
    milliseconds_p99: float


def build(run: Run, out: Writer, progress: Progress) -> None:
    """Build the configured index over all live items, and measure it.

    Its places are those of live items by rising row; `ids.parquet` has the row of each.

    Raises:
        ConfigError: no such kind, or parameters that do not fit the vectors.
    """
    config, export, shards = run.config.index, run.artifact("export"), run.artifact("shards")
    kind, spec = kind_of(config.kind), Spec.of(export)
    items = Vectors.of(export, "items")
    row_N = np.flatnonzero(items.live())
    parameters = kind.plan(len(row_N), spec.dim, config)
    with threads(config.threads):
        item_ND = items.load() if len(row_N) == items.count else items.gather(row_N)
        progress.update(0, len(row_N), "items")
        index = kind.build(item_ND, parameters, run.config.run.seed)
        progress.update(len(row_N), len(row_N), "items")
        size = _write(out, config.kind, index, items, row_N)
        source, rows = choose_users(shards, config.queries, run.config.run.seed)
        truth = truth_of(Vectors.of(export, "users").gather(rows), item_ND)
        points = _curve(index, truth, item_ND, progress)
        exact = exact_latency(item_ND, truth)
    chosen = points[0]
    out.write_json("recall.json", _recall_json(index, truth, source, points))
    curve = [_point_json(index, p, size) for p in sorted(points, key=lambda p: p.setting)]
    exact_json = {"ms_per_query": exact.mean, "ms_p99": exact.p99, "bytes": item_ND.nbytes}
    out.write_json("latency.json", {"exact": exact_json, "curve": curve}, volatile=True)
    progress.note(f"recall@{K} {chosen.recall:.4f}, {chosen.milliseconds:.3f} ms a query")
    out.commit(
        {
            "items_in": spec.items,
            "indexed": int(index.engine.ntotal),
            "not_live": spec.items - len(row_N),
            "queries": len(rows),
        },
        measured={
            "ms_per_query": chosen.milliseconds,
            "ms_p99": chosen.milliseconds_p99,
            "exact.ms_per_query": exact.mean,
        },
        software={"faiss": faiss.__version__},
    )


def _write(out: Writer, kind: str, index: Index, items: Vectors, row_N: Rows) -> int:
    """Write index, ids and spec; returns the bytes of the index."""
    data = index.save()
    out.write("items.faiss", data)
    out.write_table(
        "ids.parquet", pa.table([pa.array(row_N), pa.array(items.ids(row_N))], schema=_IDS)
    )
    out.write_json(
        "spec.json",
        {
            "kind": kind,
            "parameters": index.parameters,
            "knob": index.knob,
            "metric": "inner_product",
            "dim": items.dim,
            "items": len(row_N),
            "bytes": len(data),
            "estimate": type(index).estimate(len(row_N), items.dim, index.parameters),
            "sha256": next(e.sha256 for e in out.entries if e.path == "items.faiss"),
        },
    )
    return len(data)


def _curve(index: Index, truth: Truth, item_ND: Floats, progress: Progress) -> list[_Measured]:
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
    index: Index, truth: Truth, source: str, points: list[_Measured]
) -> dict[str, Any]:
    rising = sorted(points, key=lambda p: p.setting)
    return {
        "k": truth.k,
        "queries": len(truth.query_BD),
        "queries_from": source,
        f"recall@{K}": points[0].recall,
        "knob": index.knob,
        "setting": points[0].setting,
        "curve": [{"setting": p.setting, f"recall@{K}": p.recall} for p in rising],
    }


def _point_json(index: Index, point: _Measured, size: int) -> dict[str, Any]:
    return {
        "parameter": index.knob or "exact",
        "value": point.setting if index.knob else None,
        "chosen": point.setting == index.parameters.get(index.knob, 0),
        f"recall@{K}": point.recall,
        "ms_per_query": point.milliseconds,
        "ms_p99": point.milliseconds_p99,
        "bytes": size,
    }
