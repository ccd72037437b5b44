"""A run up to `train`, written through `Writer` without Spark or training: vectors are planted.

Users and items of one cluster point the same way, so that the right answers are known.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import safetensors.numpy

from embedmill.jobs import export as export_job
from embedmill.jobs import index as index_job
from embedmill.pipeline.log import Quiet
from embedmill.pipeline.store.run import Run, save_config
from embedmill.schemas.events import EVENTS, ITEMS_META
from embedmill.schemas.shards import SHARD
from tests.support.worlds import config, counted, vocabulary

Floats = npt.NDArray[np.float32]
Pairs = list[tuple[int, int, float]]
SPLITS = ("train", "valid", "test")


@dataclass
class Planted:
    """What the artifacts say: raw ids, events by split as rows, tables of the model."""

    users: list[str]
    items: list[Any]
    splits: Mapping[str, Pairs]
    user_ND: Floats
    item_ND: Floats
    model: Mapping[str, Any] = field(default_factory=dict)
    user_bias: Floats | None = None
    item_bias: Floats | None = None
    titles: list[str] = field(default_factory=list)
    categories: list[list[str]] = field(default_factory=list)
    retired: frozenset[str | None] = frozenset()  # None for rows without an id
    vocab_rows: int = 1 << 20
    continues: str = ""  # folder of the run whose rows it keeps

    def store(self, root: Path | str, **sections: Any) -> Run:
        """Write events, vocab, shards and train."""
        run = Run(config(root, "log.tsv", **sections))
        total = sum(len(pairs) for pairs in self.splits.values())
        self._events(run, total)
        self._vocab(run, total)
        self._shards(run, total)
        self._train(run)
        return run

    def _events(self, run: Run, total: int) -> None:
        out = run.writer("events")
        columns = {
            "user": ["u"] * total, "item": ["i"] * total, "time": [0] * total,
            "weight": [1.0] * total, "split": pa.nulls(total, pa.string()),
        }  # fmt: skip
        out.write_table("data/part-00000.parquet", pa.table(columns, schema=EVENTS))
        if self.titles:
            meta = [self.items, self.titles, self.categories or [[]] * len(self.items)]
            table = pa.table(dict(zip(ITEMS_META.names, meta, strict=True)), schema=ITEMS_META)
            out.write_table("items.parquet", table)
        out.commit(
            {"rows_in": total, "events": total, "rejected": 0, "merged": 0, "rejects_kept": 0}
        )

    def _vocab(self, run: Run, total: int) -> None:
        out = run.writer("vocab")
        tables = {}
        for place, (side, ids) in enumerate((("users", self.users), ("items", self.items))):
            counts = [0] * len(ids)
            for pairs in self.splits.values():
                for pair in pairs:
                    counts[int(pair[place])] += 1
            live = [one not in self.retired for one in ids]
            tables[side] = vocabulary(ids, counts, live)
            for first in range(0, len(ids), self.vocab_rows):
                path = f"{side}/part-{first // self.vocab_rows:05d}.parquet"
                out.write_table(path, tables[side].slice(first, self.vocab_rows))
        if self.continues:
            out.write_json("previous.json", {"continues": self.continues}, volatile=True)
        out.commit({
            "events_in": total, "events_kept": total, "events_dropped": 0, **counted(**tables),
        })  # fmt: skip

    def _shards(self, run: Run, total: int) -> None:
        out, partitions = run.writer("shards"), run.config.run.partitions
        for split in SPLITS:
            for p in range(partitions):
                mine = [pair for pair in self.splits.get(split, []) if pair[0] % partitions == p]
                columns = {
                    "user_row": [pair[0] for pair in mine],
                    "item_row": [pair[1] for pair in mine],
                    "time": pa.nulls(len(mine), pa.int64()),
                    "weight": pa.array([pair[2] for pair in mine], pa.float32()),
                    "hash": range(len(mine)),
                }
                table = pa.table(columns, schema=SHARD)
                out.write_table(f"{split}/part-{p:05d}.parquet", table)
        sizes = {split: len(self.splits.get(split, [])) for split in SPLITS}
        out.commit({"events_in": total, "dropped": 0, **sizes})

    def _train(self, run: Run) -> None:
        out, partitions = run.writer("train"), run.config.run.partitions
        for side, table, bias in (
            ("users", self.user_ND, self.user_bias),
            ("items", self.item_ND, self.item_bias),
        ):
            for p in range(partitions):
                tensors = {"weight": np.ascontiguousarray(table[p::partitions])}
                if bias is not None:
                    tensors["bias"] = np.ascontiguousarray(bias[p::partitions])
                data = safetensors.numpy.save(tensors)
                out.write(f"{side}/part-{p:05d}.safetensors", data)
        model = {
            "objective": "softmax", "similarity": "cosine", "dim": self.item_ND.shape[1],
            "bias": self.item_bias is not None, "mean": 0.0, "users": len(self.users),
            "items": len(self.items), "partitions": partitions, "best_epoch": 1, "metric": "",
        }  # fmt: skip
        out.write_json("model.json", {**model, **self.model})
        out.write_json("history.json", [])
        out.commit({"users": len(self.users), "items": len(self.items)})


def finished(world: Planted, root: Path | str, **sections: Any) -> Run:
    """The run with its export and its index."""
    run = world.store(root, **sections)
    for stage, job in (("export", export_job), ("index", index_job)):
        job.build(run, run.writer(stage), Quiet())
    save_config(run)
    return run


def clusters(
    users: int = 40, items: int = 30, count: int = 5, dim: int = 8, seed: int = 3
) -> Planted:
    """Users and items in `count` clusters; a user trains on its own cluster's items.

    User u and item i are in cluster u mod count, i mod count. Of the items of its cluster a
    user has the first in valid, the second in test, the rest (but the last) in train.
    """
    draw = np.random.default_rng(seed)
    centre = np.linalg.qr(draw.standard_normal((dim, dim)))[0][:count].astype(np.float32)
    noise = 0.05
    splits: dict[str, Pairs] = {split: [] for split in SPLITS}
    for user in range(users):
        home = [item for item in range(items) if item % count == user % count]
        splits["valid"] += [(user, item, 1.0) for item in home[:1]]
        splits["test"] += [(user, item, 1.0) for item in home[1:2]]
        splits["train"] += [(user, item, 1.0) for item in home[2:-1]]
    return Planted(
        users=[f"u{u}" for u in range(users)],
        items=[f"i{i}" for i in range(items)],
        splits=splits,
        user_ND=_around(centre, users, noise, draw),
        item_ND=_around(centre, items, noise, draw),
    )


def _around(centre: Floats, rows: int, noise: float, draw: np.random.Generator) -> Floats:
    chosen = centre[np.arange(rows) % len(centre)]
    return (chosen + noise * draw.standard_normal(chosen.shape)).astype(np.float32)
