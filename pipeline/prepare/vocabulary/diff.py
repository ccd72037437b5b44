"""The difference between two vocabularies of any size: which ids came, went and stayed.

An id is in a run if its row there is live. It *came* if it is in the second run only; it is
*back* if the first run had retired it. It *went* if it is in the first run only; it is *retired*
if the second run keeps its row. An id that is in both *stayed*, and has *moved* if its rows differ.
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
from embedmill.pipeline.prepare.vocabulary.id_counts import SIDES
from embedmill.pipeline.store.artifact import Artifact
from embedmill.pipeline.views.vocab import Vocab

__all__ = ["KINDS", "compare"]

KINDS = ("came", "went", "stayed")
_IDS = pa.schema(
    [("id", pa.string()), ("row", pa.int64()), ("count", pa.int64()), ("live", pa.bool_())]
)
_SUMMARY = pa.schema([("summary", pa.string())])  # of a task, as JSON


def compare(
    session: SparkSession, first: Artifact, second: Artifact, examples: int
) -> dict[str, dict[str, Any]]:
    """Compare the vocabularies of two runs.

    Args:
        session: the engine's session.
        first: vocabulary of the earlier run.
        second: vocabulary of the later run.
        examples: number of ids to name of each kind, those with most events in either run.

    Raises:
        StaleArtifactError: another version of this program wrote one of them.

    Returns:
        by "users" and "items": `before` and `after` (live ids), `came` (`back` among them),
        `went` (`retired` among them), `stayed` (`moved` among them), and `examples`: by kind
        a list of {id, before, after}, where `before` and `after` are the counts of the id.
    """
    for vocab in (first, second):
        check_version(vocab)
    return {
        f"{side}s": _compare_side(_joined(session, first, second, f"{side}s"), examples)
        for side in SIDES
    }


def _joined(session: SparkSession, first: Artifact, second: Artifact, folder: str) -> DataFrame:
    """The ids of either run, with row, count and `live` in both; row and count -1 if not there."""
    frames = [
        read_parquet(session, vocab.storage, Vocab(vocab).files(folder), _IDS)
        .where("id is not null")
        .selectExpr("id", f"row as row_{n}", f"count as count_{n}", f"live as live_{n}")
        for n, vocab in enumerate((first, second))
    ]
    joined = frames[0].join(frames[1], "id", "full")
    states = [f"coalesce(live_{n}, false) as live_{n}" for n in range(2)]
    numbers = [f"coalesce({c}_{n}, -1) as {c}_{n}" for c in ("row", "count") for n in range(2)]
    return joined.selectExpr("id", *states, *numbers)


def _compare_side(joined: DataFrame, examples: int) -> dict[str, Any]:
    total = _Summary(examples)
    summaries = collect(map_batches(joined, partial(_summarize, examples), "summary string"))
    for text in summaries["summary"].to_pylist():
        total.add_summary(json.loads(text))
    return total.as_json()


def _summarize(examples: int, batches: Batches) -> Batches:
    summary = _Summary(examples)
    for batch in batches:
        summary.add_batch(batch)
    text = json.dumps({"counts": summary.counts, "largest": summary.largest})
    yield pa.RecordBatch.from_pylist([{"summary": text}], schema=_SUMMARY)


@dataclass
class _Summary:
    """Counts, and the ids of each kind with most events, as [-events, id, before, after]."""

    examples: int
    counts: Counter[str] = field(default_factory=Counter)
    largest: dict[str, list[Any]] = field(default_factory=lambda: defaultdict(list))

    def add_batch(self, batch: pa.RecordBatch) -> None:
        """Add a batch of ids, as `_joined` gives them."""
        columns = {
            name: batch.column(name).to_numpy(zero_copy_only=False)
            for name in batch.schema.names
            if name != "id"
        }
        before, after = columns["live_0"], columns["live_1"]
        has_row = [columns[f"row_{n}"] >= 0 for n in range(2)]
        kinds = {"came": after & ~before, "went": before & ~after, "stayed": before & after}
        masks = {
            "before": before,
            "after": after,
            **kinds,
            "back": kinds["came"] & has_row[0],
            "retired": kinds["went"] & has_row[1],
            "moved": kinds["stayed"] & (columns["row_0"] != columns["row_1"]),
        }
        self.counts.update({name: int(mask.sum()) for name, mask in masks.items()})
        counts = [np.maximum(columns[f"count_{n}"], 0) for n in range(2)]
        for kind in KINDS:
            self._keep_largest(
                kind, _largest(batch.column("id"), kinds[kind], counts, self.examples)
            )

    def add_summary(self, summary: dict[str, Any]) -> None:
        """Add the summary of a task."""
        self.counts.update(summary["counts"])
        for kind, rows in summary["largest"].items():
            self._keep_largest(kind, rows)

    def _keep_largest(self, kind: str, rows: list[Any]) -> None:
        self.largest[kind] = heapq.nsmallest(self.examples, [*self.largest[kind], *rows])

    def as_json(self) -> dict[str, Any]:
        """One side of what `compare` returns."""
        names = ("before", "after", "came", "back", "went", "retired", "stayed", "moved")
        examples = {
            kind: [{"id": i, "before": b, "after": a} for _, i, b, a in self.largest[kind]]
            for kind in KINDS
        }
        return {**{name: self.counts[name] for name in names}, "examples": examples}


def _largest(ids: pa.Array, chosen: Any, counts: list[Any], number: int) -> list[Any]:
    """The chosen ids with most events in either run, as [-events, id, before, after]."""
    if not number:
        return []
    positions = np.flatnonzero(chosen)
    events = np.maximum(*counts)[positions]
    if len(positions) > number:
        # Keep all that tie with the last one; then the ids decide.
        threshold = np.partition(events, len(events) - number)[len(events) - number]
        positions = positions[events >= threshold]
    rows = (
        [
            -int(max(counts[0][p], counts[1][p])),
            ids[p].as_py(),
            int(counts[0][p]),
            int(counts[1][p]),
        ]
        for p in positions.tolist()
    )
    return heapq.nsmallest(number, rows)
