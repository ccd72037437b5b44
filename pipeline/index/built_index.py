"""What every way of building an index is given, and what it gives back.

Legend: B queries, N items, D coordinates.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from embedmill.pipeline.config import IndexConfig
from embedmill.pipeline.index.incremental.carry_over import CarriedIndex
from embedmill.pipeline.index.measure import Latency, Truth
from embedmill.pipeline.index.searchable import Floats, Searchable
from embedmill.pipeline.index.selection.selector import Selection
from embedmill.pipeline.index.selection.targets import Targets
from embedmill.pipeline.log import Progress
from embedmill.pipeline.store.artifact_writer import Writer
from embedmill.pipeline.views.vectors import Vectors
from embedmill.schemas.index import IncrementalSpec, ShardSpec

__all__ = ["BuildTask", "BuiltIndex"]


@dataclass(frozen=True)
class BuildTask:
    """Items to index, how, and where to write.

    `tuning_BD` and `verifying_BD` are float32 [B, D], queries to tune with (none where the config
    has no targets) and to measure with.
    """

    items: Vectors
    config: IndexConfig
    seed: int
    tuning_BD: Floats
    verifying_BD: Floats
    out: Writer
    progress: Progress


@dataclass(frozen=True)
class BuiltIndex:
    """An index whose files have been written, and what is known of it.

    `bytes` are those of its files, `estimate` what they were estimated at. `truth` are the
    verifying queries with their correct answers, `exact` is the latency of exact search. It has
    one file with this `sha256`, or `shards`; an incremental one has further files, described in
    `incremental`. `selection` is there where the config has targets, `carried` where the index was
    carried over.
    """

    kind: str
    index: Searchable
    bytes: int
    estimate: int
    truth: Truth
    exact: Latency
    sha256: str | None = None
    shards: list[ShardSpec] | None = None
    selection: Selection[Any] | None = None
    carried: CarriedIndex | None = None
    incremental: IncrementalSpec | None = None

    @property
    def targets(self) -> Targets | None:
        """What it was built to meet; None where the config has no targets."""
        if self.selection is not None:
            return self.selection.targets
        return self.carried.targets if self.carried is not None else None

    def counters(self) -> dict[str, int]:
        """Counters that only an index that was carried over has."""
        return self.carried.index.layout.counters() if self.carried is not None else {}
