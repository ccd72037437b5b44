"""What came, went and stayed between two vocabularies, at any size.

An id is in a run where its row is live. It *came* if it is in the second alone, and is *back*
if the first had retired it; it *went* if it is in the first alone, and is *retired* if the
second keeps its row. Of those that *stayed*, the ones whose row differs have *moved*.
"""

from __future__ import annotations

import heapq
import json
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession

from embedmill.pipeline.prepare.engine.frames import Batches, collect, map_batches
from embedmill.pipeline.prepare.engine.parquet_frame import read_parquet
from embedmill.pipeline.prepare.vocabulary.base_vocabulary import check_version
from embedmill.pipeline.prepare.vocabulary.counts import SIDES
from embedmill.pipeline.store.artifact import Artifact

__all__ = ["KINDS", "compare"]

KINDS = ("came", "went", "stayed")
_IDS = pa.schema(
    [("id", pa.string()), ("row", pa.int64()), ("count", pa.int64()), ("live", pa.bool_())]
)
_SAID = pa.schema([("said", pa.string())])


def compare(
    session: SparkSession, first: Artifact, second: Artifact, examples: int
) -> dict[str, dict[str, Any]]:
    """Compare the vocabularies of two runs.

    Args:
        session: the engine.
        first: vocab of the run before.
        second: vocab of the run after.
        examples: ids to name of each kind, those with most events in either run.

    Raises:
        StaleArtifactError: one of them was written by another version of this program.

    Returns:
        by "users" and "items": `before` and `after` (live ids), `came` (`back` among them),
        `went` (`retired` among them), `stayed` (`moved` among them), and `examples`: by kind
        a list of {id, before, after}, which are counts.
    """
    for vocab in (first, second):
        check_version(vocab)
    return {
        f"{side}s": _told(_joined(session, first, second, f"{side}s"), examples) for side in SIDES
    }


def _joined(session: SparkSession, first: Artifact, second: Artifact, folder: str) -> DataFrame:
    """Ids of either run with row, count and state in both."""
    frames = [
        read_parquet(session, run.storage, run.files(folder), _IDS)
        .where("id is not null")
        .selectExpr("id", f"row as row_{n}", f"count as count_{n}", f"live as live_{n}")
        for n, run in enumerate((first, second))
    ]
    joined = frames[0].join(frames[1], "id", "full")
    states = [f"coalesce(live_{n}, false) as live_{n}" for n in range(2)]
    numbers = [f"coalesce({c}_{n}, -1) as {c}_{n}" for c in ("row", "count") for n in range(2)]
    return joined.selectExpr("id", *states, *numbers)


def _told(joined: DataFrame, examples: int) -> dict[str, Any]:
    total = _Sum(examples)
    sums = map_batches(joined, partial(_sum, examples), "said string")
    for text in collect(sums)["said"].to_pylist():
        total.take(json.loads(text))
    return total.as_json()


def _sum(examples: int, batches: Batches) -> Batches:
    total = _Sum(examples)
    for batch in batches:
        total.add(batch)
    said = json.dumps({"counts": total.counts, "best": total.best})
    yield pa.RecordBatch.from_pylist([{"said": said}], schema=_SAID)


@dataclass
class _Sum:
    """Counts, and the ids of most events of each kind, as (-events, id, before, after)."""

    examples: int
    counts: Counter[str] = field(default_factory=Counter)
    best: dict[str, list[Any]] = field(default_factory=lambda: defaultdict(list))

    def add(self, batch: pa.RecordBatch) -> None:
        """Count a batch of ids of either run."""
        numbers = {
            name: batch.column(name).to_numpy(zero_copy_only=False)
            for name in batch.schema.names
            if name != "id"
        }
        before, after = numbers["live_0"], numbers["live_1"]
        known = [numbers[f"row_{n}"] >= 0 for n in range(2)]
        kinds = {"came": after & ~before, "went": before & ~after, "stayed": before & after}
        moved = kinds["stayed"] & (numbers["row_0"] != numbers["row_1"])
        parts = {
            "before": before,
            "after": after,
            **kinds,
            "back": kinds["came"] & known[0],
            "retired": kinds["went"] & known[1],
            "moved": moved,
        }
        self.counts.update({name: int(flags.sum()) for name, flags in parts.items()})
        counts = [np.maximum(numbers[f"count_{n}"], 0) for n in range(2)]
        for kind in KINDS:
            self._keep(kind, _largest(batch.column("id"), kinds[kind], counts, self.examples))

    def take(self, said: dict[str, Any]) -> None:
        """Add what a task has counted."""
        self.counts.update(said["counts"])
        for kind, found in said["best"].items():
            self._keep(kind, found)

    def _keep(self, kind: str, found: list[Any]) -> None:
        self.best[kind] = heapq.nsmallest(self.examples, [*self.best[kind], *found])

    def as_json(self) -> dict[str, Any]:
        """What `compare` gives of a side."""
        names = ("before", "after", "came", "back", "went", "retired", "stayed", "moved")
        shown = {
            kind: [{"id": i, "before": b, "after": a} for _, i, b, a in self.best[kind]]
            for kind in KINDS
        }
        return {**{name: self.counts[name] for name in names}, "examples": shown}


def _largest(ids: pa.Array, chosen: Any, counts: list[Any], most: int) -> list[Any]:
    """The chosen ids with most events in either run."""
    if not most:
        return []
    places = np.flatnonzero(chosen)
    events = np.maximum(*counts)[places]
    if len(places) > most:
        # All that tie with the last one: their ids decide.
        places = places[events >= np.partition(events, len(events) - most)[len(events) - most]]
    return heapq.nsmallest(
        most,
        (
            [-int(max(counts[0][p], counts[1][p])), ids[int(p)].as_py(), int(counts[0][p]),
             int(counts[1][p])]
            for p in places.tolist()
        ),
    )  # fmt: skip
