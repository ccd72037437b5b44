"""A small finished run for the report to show, written through `Writer`.

Items lie in clusters: item i in cluster i mod `clusters`, its vector near its cluster's own
axis, so its neighbours are its cluster. Item 0 is the most frequent.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from embedmill.pipeline import report
from embedmill.pipeline.config import parse
from embedmill.pipeline.log import Quiet
from embedmill.pipeline.store.artifact import Writer
from embedmill.pipeline.store.run import Run
from embedmill.schemas.events import EVENTS, ITEMS_META, REJECTS
from embedmill.schemas.export import VectorSpec, embeddings
from embedmill.schemas.shards import SHARD
from tests.support.worlds import counted, vocabulary

HOSTILE = (
    "<script>alert(1)</script>",
    "</script><img src=x onerror=alert(2)>",
    "\"double\" & 'single' quotes",
    "‮reversed‬ and שלום עולם",
    "A very long title " * 40,
    "<!-- comment",
    "日本語の題名",
    "tab\there and \x07 bell",
    "",
)


@dataclass(frozen=True)
class ReportWorld:
    """What to put into the run."""

    items: int = 60
    clusters: int = 4
    dim: int = 8
    rating: bool = False
    softmax_bias: bool = False
    metadata: bool = True
    categories: bool = True
    validation: bool = True
    rejects: bool = True
    test_users: int = 50
    gates: tuple[bool, ...] = (True, True)
    title: Callable[[int], str] = lambda i: f"Film number {i} ({1950 + i % 70})"
    category: Callable[[int], str] = lambda i: f"genre-{i % 4}"
    ks: tuple[int, ...] = (10, 20, 100)
    not_live: frozenset[int] = frozenset()
    raw_id: Callable[[int], str] = lambda i: f"i{i}"
    distributions: bool = True
    shards: int = 0
    carried: bool = False

    def write(self, root: Path | str, **section: Any) -> Run:
        """All stages before `report`, finished; `section` is the config's `report`."""
        tree: dict[str, Any] = {
            "run": {"name": "world", "root": str(root), "partitions": 2},
            "events": {"paths": "log.tsv", "time": "t", "weight": "w"},
            "train": {
                "objective": "rating" if self.rating else "softmax",
                "dim": self.dim,
                "launcher": "inline",
                "workers": 1,
            },
            "evaluate": {"ks": list(self.ks)},
            "report": section,
        }
        run = Run(parse(tree))
        for stage in (self._events, self._vocab, self._shards, self._train, self._export,
                      self._index, self._evaluate):  # fmt: skip
            name = stage.__name__.removeprefix("_")
            stage(run.writer(name))
        return run

    def count(self, i: int) -> int:
        """Events of item i, falling."""
        return max(1, int(600 / (i + 1) ** 0.7))

    def vectors(self) -> np.ndarray[Any, Any]:
        """[items, dim], unit length, in clusters."""
        draw = np.random.default_rng(5)
        found = draw.normal(scale=0.16, size=(self.items, self.dim))
        for i in range(self.items):
            found[i, i % self.clusters % self.dim] += 1
        return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)

    @property
    def biased(self) -> bool:
        """Whether items have a bias."""
        return self.rating or self.softmax_bias

    def biases(self) -> np.ndarray[Any, Any]:
        """[items], rising with the row from -1 to 1."""
        return np.linspace(-1, 1, self.items, dtype=np.float32)

    def _events(self, out: Writer) -> None:
        out.write_table("data/part-00000.parquet", EVENTS.empty_table())
        rows = [
            ("/raw/u.data", 7, "wrong number of columns", b"1\t2"),
            ("/raw/u.data", 3, "wrong number of columns", b"<script>alert(3)</script>"),
            ("/raw/u.data", 9, "wrong number of columns", b"x"),
            ("/raw/u.data", 5, "wrong number of columns", b"\xff\xfe caf\xe9"),
            ("/raw/u.data", 11, "weight is not a finite number", b"1\t2\t3\tnan"),
        ]
        columns = list(zip(*rows, strict=True)) if self.rejects else [[], [], [], []]
        table = pa.table(
            [pa.array(c, f.type) for c, f in zip(columns, REJECTS, strict=True)], schema=REJECTS
        )
        out.write_table("rejects/part-00000.parquet", table)
        if self.metadata:
            meta = {
                "item": [self.raw_id(i) for i in range(self.items)],
                "title": [self.title(i) for i in range(self.items)],
                "categories": [
                    [self.category(i)] if self.categories else [] for i in range(self.items)
                ],
            }
            out.write_table("items.parquet", pa.table(meta, schema=ITEMS_META))
        if self.distributions:
            out.write_json("days.json", [[f"2020-0{m}-01", 100 * m] for m in range(1, 10)])
        kept = table.num_rows
        counters = {"rows_in": kept + 3, "events": 0, "rejected": kept, "merged": 3}
        counters |= {"rejects_kept": kept}
        if kept:
            counters |= {
                "rejected.wrong number of columns": 4, "rejected.weight is not a finite number": 1
            }  # fmt: skip
        out.commit(counters)

    def _vocab(self, out: Writer) -> None:
        rows = range(self.items)
        items = vocabulary([self.raw_id(i) for i in rows], [self.count(i) for i in rows])
        out.write_table("items/part-00000.parquet", items)
        users = vocabulary(["u0"], [9])
        out.write_table("users/part-00000.parquet", users)
        if self.distributions:
            bins = [[n, 1200 // n**2, n * (1200 // n**2)] for n in (1, 2, 3, 5, 8, 13, 21, 34)]
            side = {"counts": bins, "heaviest": [["<b>u0</b>", 34], [self.raw_id(1), 21]]}
            out.write_json("counts.json", {"users": side, "items": side})
        out.commit({
            "events_in": 5000, "events_kept": 4980, "events_dropped": 20,
            **counted(users, items), "users_dropped": 2, "items_dropped": 1, "rounds": 1,
        })  # fmt: skip

    def _shards(self, out: Writer) -> None:
        for split in ("train", "valid", "test"):
            out.write_table(f"{split}/part-00000.parquet", SHARD.empty_table())
        out.commit({
            "events_in": 0, "train": 0, "valid": 0, "test": 0, "dropped": 0, "repeats_test": 0,
            "cold_items_test": 3, "cold_users_test": 0,
        })  # fmt: skip

    def _train(self, out: Writer) -> None:
        metric = "rmse" if self.rating else "ndcg@10"
        model = {
            "objective": "rating" if self.rating else "softmax",
            "similarity": "dot" if self.rating else "cosine",
            "dim": self.dim, "bias": self.biased, "mean": 3.5, "users": 1, "items": self.items,
            "partitions": 2, "best_epoch": 9, "metric": metric,
        }  # fmt: skip
        history = []
        for epoch in range(1, 13):
            row: dict[str, Any] = {
                "epoch": epoch, "train_loss": 4.2 * math.exp(-epoch / 5) + 2, "learning_rate": 0.1
            }  # fmt: skip
            if self.validation:
                fit = 1 - math.exp(-epoch / 3) - 0.004 * max(0, epoch - 9) ** 2
                row |= {metric: 0.9 + 0.2 * (1 - fit)} if self.rating else {
                    metric: 0.14 * fit, "recall@10": 0.13 * fit, "hit_rate@10": 0.5 * fit
                }  # fmt: skip
            history.append(row)
        out.write_json("model.json", model)
        out.write_json("history.json", history)
        lines: list[dict[str, Any]] = [
            {"kind": "start", "workers": 2},
            {"kind": "steps", "pairs": 40000, "seconds": 8.0, "seconds.loss": 6.0,
             "seconds.exchange": 1.5, "seconds.wait": 0.5},
            {"kind": "start", "workers": 3},
            {"kind": "steps", "pairs": 20000, "seconds": 4.0, "seconds.loss": 3.0,
             "seconds.exchange": 1.0, "seconds.wait": 0.0},
            {"kind": "epoch", "seconds": 6.0, "seconds.validate": 6.0},
        ]  # fmt: skip
        text = "".join(json.dumps(line) + "\n" for line in lines)
        out.write("log.jsonl", text.encode(), volatile=True)
        out.commit({"epochs": 12, "steps": 480, "pairs": 60000, "best_epoch": 9})

    def _export(self, out: Writer) -> None:
        vectors, bias = self.vectors(), self.biases()
        if self.biased:
            vectors = np.concatenate([vectors, bias[:, None]], axis=1)
        dim = vectors.shape[1]
        flat = pa.array(vectors.reshape(-1), pa.float32())
        rows = list(range(self.items))
        schema = embeddings(dim, bias=self.biased)
        columns = [
            pa.array(rows, pa.int64()),
            pa.array([self.raw_id(i) for i in rows], pa.string()),
            pa.array([self.count(i) for i in rows], pa.int64()),
            pa.array([i not in self.not_live for i in rows]),
            pa.FixedSizeListArray.from_arrays(flat, type=schema.field("vector").type),
        ]
        if self.biased:
            columns.append(pa.array(bias))
        table = pa.table(columns, schema=schema)
        # Two files, so that reading by range is put to the test.
        half = self.items // 2
        if half:
            out.write_table("items/part-00000.parquet", table.slice(0, half))
        out.write_table("items/part-00001.parquet", table.slice(half))
        spec = VectorSpec(
            objective="rating" if self.rating else "softmax",
            similarity="dot" if self.rating else "cosine", dim=dim, model_dim=self.dim,
            bias=self.biased, mean=3.5, users=0, items=self.items,
        )  # fmt: skip
        out.write_json("spec.json", spec.as_json())
        out.commit({"users_in": 0, "users": 0, "items_in": self.items, "items": self.items})

    def _index(self, out: Writer) -> None:
        spec: dict[str, Any] = {
            "kind": "hnsw", "parameters": {"ef_search": 128}, "knob": "ef_search",
            "metric": "inner_product", "dim": self.dim, "items": self.items, "bytes": 870_000,
            "estimate": 870_000, "sha256": "0" * 64, "promise": None, "living": None,
        }  # fmt: skip
        if self.shards:
            spec["shards"] = [
                {"path": f"shard-{n}", "items": 7 + n, "bytes": 1, "sha256": "0" * 64}
                for n in range(self.shards)
            ]
        if self.carried:
            spec["living"] = {
                "recall_when_built": 0.9911, "delta": None, "delta_bytes": 0, "base_places": 48,
                "kept": 40, "changed": 5, "new": 15, "removed": 3,
                "indexed_before": 48, "tombstones": 8, "in_base": 40, "in_delta": 20,
            }  # fmt: skip
        out.write_json("spec.json", spec)
        recall: dict[str, Any] = {
            "k": 10,
            "queries": 50,
            "queries_from": "test",
            "recall@10": 0.997,
        }
        verified = {
            "mean": 0.997, "low": 0.9951, "high": 0.998, "queries": 50, "confidence": 0.95,
            "method": "planted",
        }  # fmt: skip
        point = {"kind": "ivfsq8", "parameters": {"lists": 8, "probes": 3}, "recall@10": 0.91}
        target = {
            "recall_at_10": 0.95, "max_bytes": 2_000_000, "max_latency_ms": None,
            "verified": verified, "tuning_queries": 50, "attempts": 1,
            "frontier": [{**point, "counted_us": 12.5, "bytes": 66_000}],
        }  # fmt: skip
        recall |= {"knob": "ef_search", "setting": 128, "curve": [], "promise": target}
        out.write_json("recall.json", recall)
        points = [
            {
                "parameter": "ef_search",
                "value": ef,
                "chosen": ef == 128,
                "recall@10": 1 - 0.3 / (1 + ef / 12) ** 2,
                "ms_per_query": 0.02 + ef / 900,
                "ms_p99": 0.4,
                "bytes": 870_000,
            }
            for ef in (16, 32, 64, 128, 256)
        ]
        exact = {"ms_per_query": 0.21, "ms_p99": 0.4, "bytes": 430_000}
        latency = {"exact": exact, "curve": points, "candidates": []}
        out.write_json("latency.json", latency, volatile=True)
        out.commit(
            {"items_in": self.items, "indexed": self.items, "not_live": 0, "queries": 50},
            measured={"ms_per_query": 0.16},
        )

    def _evaluate(self, out: Writer) -> None:
        metrics: dict[str, Any] = {"users": self.test_users, "cold_users": 2}
        slices: list[dict[str, Any]] = []
        if self.test_users:
            stems = {"recall": 0.131, "ndcg": 0.142, "mrr": 0.262, "hit_rate": 0.61}
            for k in self.ks:
                grow = math.log(k) / math.log(self.ks[0]) if self.ks[0] > 1 else 1
                for stem, value in {**stems, "coverage": 0.4}.items():
                    key = f"{stem}@{k}"
                    metrics[key] = min(0.98, value * grow)
                    metrics[f"popularity.{key}"] = metrics[key] / (9 if stem == "coverage" else 1.8)
                    metrics[f"through_index.{key}"] = metrics[key] * 0.999
            metrics |= {"index.recall@10": 0.997, "index.bytes": 870_000}
            slices = [self._slice(i) for i in range(3)]
        if self.rating and self.test_users:
            metrics |= {"rmse": 0.9312, "mae": 0.7331, "rmse.mean_baseline": 1.1257}
        out.write_json("metrics.json", metrics)
        out.write_json("slices.json", slices)
        wanted = [("over_popularity", "recall@10", 1.5, 1.8)]
        wanted.append(("least", "index.recall@10", 0.95, 0.997))
        gates = [
            {"gate": g, "metric": m, "wanted": w, "got": got if ok else None, "passed": ok}
            for (g, m, w, got), ok in zip(wanted, self.gates, strict=False)
        ]
        out.write_json("gates.json", gates)
        counters = {"cold_users": 2, "cold_events": 5, "repeats": 0, "nothing_left": 1}
        out.commit({"users": self.test_users, "test_pairs": 10 * self.test_users, **counters})

    def _slice(self, i: int) -> dict[str, Any]:
        """Head, middle and tail; popularity finds the head alone."""
        found: dict[str, Any] = {
            "slice": ("head", "middle", "tail")[i],
            "items": 9 * (i + 1) ** 2,
            "train_events": 1600,
            "test_pairs": 150,
        }
        for k in self.ks:
            found |= {
                f"recall@{k}": 0.2 / (i + 1),
                f"popularity.recall@{k}": (0.19, 0.0, 0.0)[i],
                f"through_index.recall@{k}": 0.2 / (i + 1),
            }
        return found


def build(run: Run) -> Run:
    """Build the report of a run that is finished up to it."""
    report.build(run, run.writer("report"), Quiet())
    return run


def report_data(run: Run) -> Any:
    """What `data.json` of a built report says."""
    return json.loads(run.artifact("report").read("data.json"))
