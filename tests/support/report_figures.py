"""Figures of a run for its report: training, index and evaluation, as JSON of their stages."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

from embedmill.pipeline.store.artifact import Artifact
from embedmill.pipeline.store.run import Run
from embedmill.schemas import evaluate, index
from embedmill.schemas.train import Epoch

__all__ = ["training_history", "training_log", "write_evaluate", "write_index"]


def training_history(metric: str, *, validated: bool) -> list[Epoch]:
    """Twelve epochs, the ninth the best by `metric`; "rmse" falls, others rise."""
    history = []
    for epoch in range(1, 13):
        figures: dict[str, Any] = {}
        if validated:
            fit = 1 - math.exp(-epoch / 3) - 0.004 * max(0, epoch - 9) ** 2
            figures = {metric: 0.9 + 0.2 * (1 - fit)} if metric == "rmse" else {
                metric: 0.14 * fit, "recall@10": 0.13 * fit, "hit_rate@10": 0.5 * fit
            }  # fmt: skip
        loss = 4.2 * math.exp(-epoch / 5) + 2
        history.append(Epoch(epoch=epoch, train_loss=loss, learning_rate=0.1, **figures))
    return history


def training_log() -> bytes:
    """The log of a training that began anew with a third worker."""
    lines: list[dict[str, Any]] = [
        {"kind": "start", "workers": 2},
        {"kind": "steps", "pairs": 40000, "seconds": 8.0, "seconds.loss": 6.0,
         "seconds.exchange": 1.5, "seconds.wait": 0.5},
        {"kind": "start", "workers": 3},
        {"kind": "steps", "pairs": 20000, "seconds": 4.0, "seconds.loss": 3.0,
         "seconds.exchange": 1.0, "seconds.wait": 0.0},
        {"kind": "epoch", "seconds": 6.0, "seconds.validate": 6.0},
    ]  # fmt: skip
    return "".join(json.dumps(line) + "\n" for line in lines).encode()


def write_index(run: Run, items: int, dim: int, *, shards: int, incremental: bool) -> Artifact:
    """Stage index without its index: a graph of target recall 0.95.

    Args:
        run: gets it.
        items: that are indexed.
        dim: coordinates.
        shards: files of the index, of 7, 8, ... items; 0 for one.
        incremental: whether it is from the index of an earlier run, with 48 items.
    """
    out = run.writer("index")
    shard_specs = [
        index.ShardSpec(path=f"shard-{n}", items=7 + n, bytes=1, sha256="0" * 64)
        for n in range(shards)
    ]
    carried = index.IncrementalSpec(
        recall_when_built=0.9911, delta=None, delta_bytes=0, base_slots=48, kept=40, changed=5,
        new=15, removed=3, indexed_before=48, tombstones=8, in_base=40, in_delta=20,
    )  # fmt: skip
    spec = index.IndexSpec(
        kind="hnsw", parameters={"ef_search": 128}, search_parameter="ef_search",
        metric="inner_product", dim=dim, items=items, bytes=870_000, estimate=870_000,
        sha256="0" * 64, shards=shard_specs or None, target=None,
        incremental=carried if incremental else None,
    )  # fmt: skip
    out.write_json(index.SPEC, spec)
    recall = index.IndexRecall(
        k=10, queries=50, queries_from="test", recall=0.997, search_parameter="ef_search",
        setting=128, curve=[], target=_verified_target(),
    )  # fmt: skip
    out.write_json(index.RECALL, recall)
    points = [
        index.LatencyPoint(
            parameter="ef_search", value=ef, chosen=ef == 128, recall=1 - 0.3 / (1 + ef / 12) ** 2,
            ms_per_query=0.02 + ef / 900, ms_p99=0.4, bytes=870_000,
        )
        for ef in (16, 32, 64, 128, 256)
    ]  # fmt: skip
    exact = index.SearchCost(ms_per_query=0.21, ms_p99=0.4, bytes=430_000)
    out.write_json(index.LATENCY, index.IndexLatency(exact=exact, curve=points, candidates=[]))
    return out.commit(
        {"items_in": items, "indexed": items, "not_live": 0, "queries": 50},
        measured={"ms_per_query": 0.16},
    )


def _verified_target() -> index.VerifiedTarget:
    verified = index.RecallInterval(
        mean=0.997, low=0.9951, high=0.998, queries=50, confidence=0.95, method="planted"
    )
    point = index.FrontierPoint(
        kind="ivfsq8", parameters={"lists": 8, "probes": 3}, recall=0.91, counted_us=12.5,
        bytes=66_000,
    )  # fmt: skip
    return index.VerifiedTarget(
        recall_at_10=0.95, max_bytes=2_000_000, max_latency_ms=None, verified=verified,
        tuning_queries=50, attempts=1, frontier=[point],
    )  # fmt: skip


def write_evaluate(
    run: Run, ks: Sequence[int], users: int, gates: Sequence[bool], *, rating: bool
) -> Artifact:
    """Stage evaluate: 1.8 times as good as popularity.

    Args:
        run: gets it.
        ks: lengths of recommendation lists.
        users: with test events; without any there are no metrics.
        gates: whether each of up to two gates has passed.
        rating: whether the objective is "rating", which has errors of ratings too.
    """
    out = run.writer("evaluate")
    out.write_json(evaluate.METRICS, _metrics(ks, users, rating=rating))
    out.write_json(evaluate.SLICES, [_slice(i, ks) for i in range(3)] if users else [])
    wanted = [("over_popularity", "recall@10", 1.5, 1.8), ("least", "index.recall@10", 0.95, 0.997)]
    results = [
        evaluate.GateResult(gate=g, metric=m, wanted=w, got=got if ok else None, passed=ok)
        for (g, m, w, got), ok in zip(wanted, gates, strict=False)
    ]
    out.write_json(evaluate.GATES, results)
    sampled = evaluate.Protocol(
        prefix="sampled.",
        name="99 sampled negatives",
        measures="Each is ranked.",
        not_comparable="Not with whole catalogues.",
    )
    out.write_json(evaluate.PROTOCOLS, [sampled])
    counters = {"cold_users": 2, "cold_events": 5, "repeats": 0, "nothing_left": 1}
    return out.commit({"users": users, "test_pairs": 10 * users, **counters})


def _metrics(ks: Sequence[int], users: int, *, rating: bool) -> dict[str, int | float]:
    metrics: dict[str, int | float] = {"users": users, "cold_users": 2}
    if not users:
        return metrics
    stems = {"recall": 0.131, "ndcg": 0.142, "mrr": 0.262, "hit_rate": 0.61, "coverage": 0.4}
    for k in ks:
        grow = math.log(k) / math.log(ks[0]) if ks[0] > 1 else 1
        for stem, value in stems.items():
            key = f"{stem}@{k}"
            metrics[key] = min(0.98, value * grow)
            metrics[f"popularity.{key}"] = metrics[key] / (9 if stem == "coverage" else 1.8)
            metrics[f"through_index.{key}"] = metrics[key] * 0.999
    metrics |= {"index.recall@10": 0.997, "index.bytes": 870_000}
    metrics |= {"sampled.hit_rate@10": 0.713, "sampled.popularity.hit_rate@10": 0.452}
    errors = {"rmse": 0.9312, "mae": 0.7331, "rmse.mean_baseline": 1.1257}
    return metrics | errors if rating else metrics


def _slice(i: int, ks: Sequence[int]) -> evaluate.Slice:
    """Head, middle and tail; popularity finds the head alone."""
    found = {}
    for k in ks:
        found |= {
            f"recall@{k}": 0.2 / (i + 1),
            f"popularity.recall@{k}": (0.19, 0.0, 0.0)[i],
            f"through_index.recall@{k}": 0.2 / (i + 1),
        }
    name = ("head", "middle", "tail")[i]
    return evaluate.Slice(
        slice=name, items=9 * (i + 1) ** 2, train_events=1600, test_pairs=150, **found
    )
