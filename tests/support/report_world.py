"""A small finished run for the report to show.

Items lie in clusters: item i in cluster i mod `clusters`, its vector near the centre of its
cluster, so its neighbours are its cluster. Item 0 is the most frequent.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from embedmill.pipeline import report
from embedmill.pipeline.config import parse
from embedmill.pipeline.log import Quiet
from embedmill.pipeline.store.run import Run
from embedmill.pipeline.views.report import Report
from embedmill.schemas.report import ReportData
from embedmill.schemas.train import Search
from embedmill.schemas.vocab import Counts, Histogram
from tests.support.artifacts import (
    Floats,
    vocabulary,
    write_events,
    write_export,
    write_shards,
    write_train,
    write_vocab,
)
from tests.support.report_figures import (
    training_history,
    training_log,
    write_evaluate,
    write_index,
)
from tests.support.worlds import PlantedWorld

_COLUMNS = "wrong number of columns"
_REJECTS = (
    ("/raw/u.data", 7, _COLUMNS, b"1\t2"),
    ("/raw/u.data", 3, _COLUMNS, b"<script>alert(3)</script>"),
    ("/raw/u.data", 9, _COLUMNS, b"x"),
    ("/raw/u.data", 5, _COLUMNS, b"\xff\xfe caf\xe9"),
    ("/raw/u.data", 11, "weight is not a finite number", b"1\t2\t3\tnan"),
)
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
_TRIALS = [
    {"objective": name, "dim": 8, "settings": {key: 0.01}, "epochs": 3, "users": 0.25, "cost": 1.5,
     "metrics": metrics}
    for name, key, metrics in (
        ("ials", "ials.regularization", {"ndcg@10": 0.11}),
        ("ials", "ials.regularization", {}),
        ("softmax", "temperature", {"ndcg@10": 0.12}),
    )
]  # fmt: skip
_SEARCH = Search.model_validate({"trials": _TRIALS, "chosen": {"objective": "softmax", "dim": 8}})


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
        self._write_events(run)
        self._write_vocab(run)
        write_shards(run, {}, {"repeats_test": 0, "cold_items_test": 3, "cold_users_test": 0})
        self._write_train(run)
        self._write_export(run)
        write_index(run, self.items, self.dim, shards=self.shards, incremental=self.carried)
        write_evaluate(run, self.ks, self.test_users, self.gates, rating=self.rating)
        return run

    def count(self, i: int) -> int:
        """Events of item i, falling."""
        return max(1, int(600 / (i + 1) ** 0.7))

    def vectors(self) -> Floats:
        """[items, dim], unit length, in clusters."""
        world = PlantedWorld(users=1, items=self.items, clusters=self.clusters, seed=5)
        _, item_ND = world.vectors(self.dim, 0.16)
        return item_ND / np.linalg.norm(item_ND, axis=1, keepdims=True)

    @property
    def biased(self) -> bool:
        """Whether items have a bias."""
        return self.rating or self.softmax_bias

    def biases(self) -> Floats:
        """[items], rising with the row from -1 to 1."""
        return np.linspace(-1, 1, self.items, dtype=np.float32)

    def _write_events(self, run: Run) -> None:
        rows, meta = range(self.items), None
        if self.metadata:
            categories = [[self.category(i)] if self.categories else [] for i in rows]
            ids, titles = [self.raw_id(i) for i in rows], [self.title(i) for i in rows]
            meta = {"item": ids, "title": titles, "categories": categories}
        days = [(f"2020-0{m}-01", 100 * m) for m in range(1, 10)] if self.distributions else []
        rejects = _REJECTS if self.rejects else ()
        write_events(run, 0, items=meta, rejects=rejects, merged=3, days=days)

    def _write_vocab(self, run: Run) -> None:
        counts = None
        if self.distributions:
            bins = [(n, 1200 // n**2, n * (1200 // n**2)) for n in (1, 2, 3, 5, 8, 13, 21, 34)]
            heaviest = [("<b>u0</b>", 34), (self.raw_id(1), 21)]
            side = Histogram(counts=bins, heaviest=heaviest)
            counts = Counts(users=side, items=side)
        dropped = {"events_dropped": 20, "users_dropped": 2, "items_dropped": 1, "rounds": 1}
        users = vocabulary(["u0"], [9])
        write_vocab(run, users, self._vocabulary(), 4980, dropped=dropped, counts=counts)

    def _vocabulary(self) -> pa.Table:
        rows = range(self.items)
        ids, counts = [self.raw_id(i) for i in rows], [self.count(i) for i in rows]
        return vocabulary(ids, counts, [i not in self.not_live for i in rows])

    def _write_train(self, run: Run) -> None:
        metric = "rmse" if self.rating else "ndcg@10"
        tables = {"users": np.zeros((1, self.dim), np.float32), "items": self.vectors()}
        biases = {"users": np.zeros((1, 1), np.float32), "items": self.biases()[:, None]}
        write_train(
            run,
            tables,
            {**self._model, "best_epoch": 9, "metric": metric},
            biases if self.biased else None,
            history=training_history(metric, validated=self.validation),
            log=training_log(),
            counters={"epochs": 12, "steps": 480, "pairs": 60000, "best_epoch": 9},
            search=_SEARCH if self.validation and not self.rating else None,
        )

    def _write_export(self, run: Run) -> None:
        bias, two_files = self.biases() if self.biased else None, -(-self.items // 2)
        items, vectors = self._vocabulary(), self.vectors()
        write_export(run, items, vectors, self._model, bias, file_rows=two_files)

    @property
    def _model(self) -> dict[str, Any]:
        if self.rating:
            return {"objective": "rating", "similarity": "dot", "mean": 3.5}
        return {"objective": "softmax", "similarity": "cosine", "mean": 3.5}


def build(run: Run) -> Run:
    """Build the report of a run that is finished up to it."""
    report.build(run, run.writer("report"), Quiet())
    return run


def report_data(run: Run) -> ReportData:
    """The figures of a built report, as they are stored."""
    return Report(run.artifact("report")).data
