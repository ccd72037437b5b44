"""Makes events, vocab and shards artifacts from arrays: what training reads, without Spark."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from embedmill.pipeline.store.artifact import Writer
from embedmill.pipeline.store.run import Run
from embedmill.schemas.events import EVENTS
from embedmill.schemas.shards import PAIR, SHARD
from tests.support.worlds import PlantedWorld, config, counted, vocabulary

Rows = npt.NDArray[np.int64]
Splits = Mapping[str, tuple[Rows, Rows, npt.NDArray[np.float64]]]
SPLITS = ("train", "valid", "test")


def store(run: Run, users: int, items: int, splits: Splits) -> Run:
    """Write the artifacts that training reads; `splits` hold (user row, item row, weight)."""
    total = sum(len(splits[name][0]) for name in SPLITS)
    out = run.writer("events")
    out.write_table("data/part-00000.parquet", _events(total))
    out.commit({"rows_in": total, "events": total, "rejected": 0, "merged": 0, "rejects_kept": 0})
    out = run.writer("vocab")
    tables = {
        name: vocabulary([f"{name[0]}{row}" for row in range(count)], [1] * count)
        for name, count in (("users", users), ("items", items))
    }
    for name, table in tables.items():
        out.write_table(f"{name}/part-00000.parquet", table)
    out.commit({"events_in": total, "events_kept": total, "events_dropped": 0, **counted(**tables)})
    out = run.writer("shards")
    for name in SPLITS:
        _write_split(out, name, run.config.run.partitions, *splits[name])
    sizes = {name: len(splits[name][0]) for name in SPLITS}
    if run.config.shards.pairs is not None:
        sizes |= _write_pairs(run, out, splits)
    out.commit({"events_in": total, "dropped": 0, **sizes})
    return run


def planted(root: Path | str, world: PlantedWorld | None = None, **sections: Any) -> Run:
    """A run whose shards hold a planted world; each user's last two events are held out."""
    world = world or PlantedWorld()
    splits: dict[str, list[tuple[int, int, float]]] = {name: [] for name in SPLITS}
    left: dict[int, int] = {}
    for user, item, _, weight in world.events():
        row = int(user[1:])
        left[row] = left.get(row, 0) + 1
        name = {1: "test", 2: "valid"}.get(left[row], "train")
        splits[name].append((row, int(item[1:]), weight))
    arrays = {name: arrays_of(rows) for name, rows in splits.items()}
    return store(Run(config(root, "log.tsv", **sections)), world.users, world.items, arrays)


def arrays_of(
    rows: list[tuple[int, int, float]],
) -> tuple[Rows, Rows, npt.NDArray[np.float64]]:
    users, items, weights = zip(*rows, strict=True) if rows else ((), (), ())
    return (
        np.array(users, dtype=np.int64),
        np.array(items, dtype=np.int64),
        np.array(weights, dtype=np.float64),
    )


def _events(total: int) -> pa.Table:
    columns = {
        "user": ["u"] * total,
        "item": ["i"] * total,
        "time": pa.nulls(total, pa.int64()),
        "weight": [1.0] * total,
        "split": pa.nulls(total, pa.string()),
    }
    return pa.table(columns, schema=EVENTS)


def _write_split(
    out: Writer,
    name: str,
    partitions: int,
    users: Rows,
    items: Rows,
    weights: npt.NDArray[np.float64],
) -> None:
    hashes = (users * 1_000_003 + items) * 2_654_435_761 % (1 << 40)
    for partition in range(partitions):
        mine = np.flatnonzero(users % partitions == partition)
        mine = mine[np.argsort(hashes[mine], kind="stable")]
        columns = {
            "user_row": users[mine],
            "item_row": items[mine],
            "time": mine,
            "weight": weights[mine].astype(np.float32),
            "hash": hashes[mine],
        }
        out.write_table(f"{name}/part-{partition:05d}.parquet", pa.table(columns, schema=SHARD))


def _write_pairs(run: Run, out: Writer, splits: Splits) -> dict[str, int]:
    """All pairs of different items of a user, as of one session each."""
    counters: dict[str, int] = {}
    for folder, names in (("pairs", SPLITS[:1]), ("pairs_with_valid", SPLITS[:2])):
        had: dict[int, list[int]] = {}
        for name in names:
            for user, item in zip(*(c.tolist() for c in splits[name][:2]), strict=True):
                had.setdefault(user, []).append(item)
        met = Counter((a, b) for items in had.values() for a in items for b in items if a != b)
        for partition in range(run.config.run.partitions):
            mine = sorted(p for p in met if p[0] % run.config.run.partitions == partition)
            rows = [(a, b, met[a, b], at) for at, (a, b) in enumerate(mine)]
            columns = [list(c) for c in zip(*rows, strict=True)] if rows else [[]] * 4
            table = pa.table(dict(zip(PAIR.names, columns, strict=True)), schema=PAIR)
            out.write_table(f"{folder}/part-{partition:05d}.parquet", table)
        events = sum(len(splits[name][0]) for name in names)
        said = {"": len(met), "_found": met.total(), "_counted": met.total(), "_events": events}
        counters |= {
            f"{folder}{k}": v for k, v in {**said, "_thinned_out": 0, "_shared_out": 0}.items()
        }
    return counters
