"""Artifact `index`: an index over the live items, its ids, and how good and fast it is.

The search parameter is what trades time for recall when searching ("ef_search").
"""

from __future__ import annotations

import pyarrow as pa
from pydantic import Field

from embedmill.schemas.contract import ArtifactContract, Count, Counters, Law
from embedmill.schemas.files import JsonFile, Number, Stored

__all__ = [
    "BASE_ROWS",
    "BASE_ROWS_FILE",
    "BASE_VECTORS_FILE",
    "CONTRACT",
    "DELTA_FILE",
    "IDS",
    "IDS_FILE",
    "INDEX_FILE",
    "LATENCY",
    "RECALL",
    "SPEC",
    "CandidateResult",
    "CurvePoint",
    "DeltaSpec",
    "FrontierPoint",
    "IncrementalSpec",
    "IndexLatency",
    "IndexRecall",
    "IndexSpec",
    "LatencyPoint",
    "RecallInterval",
    "SearchCost",
    "ShardSpec",
    "Target",
    "VerifiedTarget",
    "shard_file",
]

# Row and raw id of the item at each position of the index, rising by row.
IDS = pa.schema(
    [pa.field("row", pa.int64(), nullable=False), pa.field("id", pa.string(), nullable=False)]
)
# Of an incremental index: the row of each position of the base, null for tombstones.
BASE_ROWS = pa.schema([pa.field("row", pa.int64())])

IDS_FILE = "ids.parquet"
# The index; of an incremental one, its base byte by byte. A sharded index has shards instead.
INDEX_FILE = "items.faiss"
BASE_ROWS_FILE = "base.parquet"
# With `index.carry_epsilon`: the vectors that the slots of the base were built with, float32
# [S, D] in order; zeros for tombstones.
BASE_VECTORS_FILE = "base.npy"
# The items that are not in the base, by rising row; absent where there are none.
DELTA_FILE = "delta.faiss"


def shard_file(kind: str, candidate: int, number: int) -> str:
    """Path of a shard of a sharded index, built by the candidate of that number of its kind."""
    return f"items-{kind}-{candidate}-{number:05d}.faiss"


class Target(Stored):
    """What the config demands of the index, by its keys; null where it demands nothing."""

    recall_at_10: Number | None
    max_bytes: int | None
    max_latency_ms: Number | None


class ShardSpec(Stored):
    """One file of a sharded index."""

    path: str
    items: int
    bytes: int
    sha256: str


class DeltaSpec(Stored):
    """The small index over the items that are not in the base."""

    kind: str
    parameters: dict[str, int]


class IncrementalSpec(Stored):
    """An index that is the base of an earlier run, tombstones and a delta.

    `recall_when_built` was measured when the base was built. Items are `kept`, `changed` (another
    vector), `new` or `removed` since the run before, which had `indexed_before`. The base has
    `base_slots` slots: `in_base` hold a live item, the others are `tombstones`.
    """

    recall_when_built: Number
    delta: DeltaSpec | None
    delta_bytes: int
    kept: int
    changed: int
    new: int
    removed: int
    indexed_before: int
    base_slots: int
    tombstones: int
    in_base: int
    in_delta: int


class IndexSpec(Stored):
    """What the index is.

    `parameters` are those of the build and the operating point of a search. `estimate` is the
    size that was expected, in bytes. `sha256` is that of the index file, null of a sharded index.
    `target` is null where the config demands nothing; `incremental` of an index built from
    scratch; `shards` is there in a sharded index alone.
    """

    kind: str
    parameters: dict[str, int]
    search_parameter: str
    metric: str
    dim: int
    items: int
    bytes: int
    estimate: int
    sha256: str | None
    shards: list[ShardSpec] | None = Field(default=None, exclude_if=lambda value: value is None)
    target: Target | None
    incremental: IncrementalSpec | None


class CurvePoint(Stored):
    """Recall at one setting of the search parameter."""

    setting: int
    recall: Number = Field(alias="recall@10")


class RecallInterval(Stored):
    """Mean recall of the queries, and the bounds of its one-sided intervals."""

    mean: Number
    low: Number
    high: Number
    queries: int
    confidence: Number
    method: str


class FrontierPoint(Stored):
    """A trial that no other beats in recall, time and bytes at once.

    `counted_us` are microseconds of a query, by counting what a search compares.
    """

    kind: str
    parameters: dict[str, int]
    recall: Number = Field(alias="recall@10")
    counted_us: Number
    bytes: int


class VerifiedTarget(Target):
    """The target, how it was reached, and the recall that verification found.

    `attempts` counts verifications; `tuning_queries` is 0 for an incremental index, which is not
    tuned again.
    """

    tuning_queries: int
    attempts: int
    verified: RecallInterval
    frontier: list[FrontierPoint]


class IndexRecall(Stored):
    """Recall of the index, measured with users who have held-out events.

    `queries_from` is the split they are from; `setting` is the one of the search parameter that
    `recall` was measured with; `curve` has every setting that was measured, rising.
    """

    k: int
    queries: int
    queries_from: str
    recall: Number = Field(alias="recall@10")
    search_parameter: str
    setting: int
    curve: list[CurvePoint]
    target: VerifiedTarget | None


class SearchCost(Stored):
    """Milliseconds of one query on one thread, mean and 99th percentile, and bytes searched."""

    ms_per_query: Number
    ms_p99: Number
    bytes: int


class LatencyPoint(SearchCost):
    """The same at one setting: `parameter` is "exact" where the kind has no search parameter."""

    parameter: str
    value: int | None
    chosen: bool
    recall: Number = Field(alias="recall@10")


class CandidateResult(Stored):
    """What became of a candidate: null where it was not built or not timed."""

    kind: str
    parameters: dict[str, int]
    verdict: str
    expected_us: Number | None
    estimated_bytes: int
    bytes: int | None
    estimated_seconds: Number
    seconds: Number | None
    ms_per_query: Number | None


class IndexLatency(Stored):
    """Latency of exact search and of the index, and the candidates that were tried."""

    exact: SearchCost
    curve: list[LatencyPoint]
    candidates: list[CandidateResult]


SPEC = JsonFile("spec.json", IndexSpec)
RECALL = JsonFile("recall.json", IndexRecall)
LATENCY = JsonFile("latency.json", IndexLatency, volatile=True)


def _status(c: Counters, n: Count) -> str:
    return f"{n(c['indexed'])} items, {n(c['queries'])} queries"


CONTRACT = ArtifactContract(
    status=_status,
    laws=(
        Law(("items_in",), ("indexed", "not_live")),
        # Of an incremental index.
        Law(("indexed",), ("kept", "changed", "new"), optional=True),
        Law(("indexed_before",), ("kept", "changed", "removed"), optional=True),
        Law(("base_slots",), ("in_base", "tombstones"), optional=True),
        Law(("indexed",), ("in_base", "in_delta"), optional=True),
    ),
)
