"""Carrying an index over from the previous run: what decides whether its base may be kept.

Legend: N live items, M items of the delta, D coordinates.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from embedmill.pipeline.config import IndexConfig, read_fields
from embedmill.pipeline.errors import ContractError
from embedmill.pipeline.index.incremental.base_layout import plan_layout
from embedmill.pipeline.index.incremental.incremental_files import (
    write_base_rows,
    write_base_vectors,
)
from embedmill.pipeline.index.incremental.incremental_index import IncrementalIndex
from embedmill.pipeline.index.incremental.previous_index import (
    find_previous_index,
    near_slots,
    unchanged_rows,
)
from embedmill.pipeline.index.kinds import kind_of
from embedmill.pipeline.index.measure import K, Truth, latency, recalls
from embedmill.pipeline.index.memory_map import map_index
from embedmill.pipeline.index.searchable import FaissIndex, Floats, Rows
from embedmill.pipeline.index.selection.confidence import Interval, recall_interval
from embedmill.pipeline.index.selection.targets import Targets
from embedmill.pipeline.index.sharded.sharded_index import ShardedIndex
from embedmill.pipeline.store.artifact import Artifact
from embedmill.pipeline.store.artifact_writer import Writer
from embedmill.pipeline.store.run import Run
from embedmill.pipeline.views.index import StoredIndex
from embedmill.pipeline.views.vectors import Vectors, space_of, spec_of
from embedmill.schemas.index import (
    DELTA_FILE,
    DeltaSpec,
    IncrementalSpec,
    ShardSpec,
    VerifiedTarget,
)

__all__ = ["MAX_RECALL_DROP", "CarriedIndex", "Rebuild", "build_delta", "carry_over"]

# If recall has dropped by more than this since the base was built, build a new index.
MAX_RECALL_DROP = 0.005
# A delta of more items than this is a graph: comparing all of them would take longer.
_FLAT_DELTA = 1 << 14


@dataclass(frozen=True)
class CarriedIndex:
    """An incremental index that passed its checks, and what is stored of it.

    `kind` is that of the base, `data` its file, or `shards` are its files, which lie in
    `before`; `recall_when_built` is the recall measured when it
    was built, `verified` that of the incremental index. `targets` is None where the config has
    none. `slot_SD` are the vectors that the base was built with, where those may be others.
    """

    kind: str
    index: IncrementalIndex
    before: StoredIndex
    data: bytes
    recall_when_built: float
    delta_kind: str
    targets: Targets | None
    verified: Interval
    slot_SD: Floats | None = None

    @property
    def shards(self) -> list[ShardSpec] | None:
        """Those of the base; None where it has one file."""
        return self.before.spec.shards

    @property
    def base_bytes(self) -> int:
        """Of the files of the base."""
        return sum(one.bytes for one in self.shards) if self.shards else len(self.data)

    def take_shards(self, out: Writer) -> None:
        """Have the files of the base in another artifact, too."""
        storage, paths = self.before.artifact.storage, {one.path for one in self.shards or ()}
        entries = [one for one in self.before.artifact.manifest.files if one.path in paths]
        for entry in entries:
            out.storage.take(entry.path, storage, entry.bytes)
        out.add(entries)

    def write(self, out: Writer, row_N: Rows) -> IncrementalSpec:
        """Write the rows of the base and the delta, beside the index file and the ids."""
        write_base_rows(out, self.index.layout, row_N)
        if self.slot_SD is not None:
            write_base_vectors(out, self.index.layout, self.slot_SD)
        delta, spec = self.index.delta, None
        data = b"" if delta is None else delta.to_bytes()
        if delta is not None:
            out.write(DELTA_FILE, data)
            spec = DeltaSpec(kind=self.delta_kind, parameters=delta.parameters)
        return IncrementalSpec(
            recall_when_built=self.recall_when_built,
            delta=spec,
            delta_bytes=len(data),
            **self.index.layout.counters(),
        )

    def verified_target(self) -> VerifiedTarget | None:
        """The targets as stored: nothing was tuned, the tuned base still meets them."""
        if self.targets is None:
            return None
        return VerifiedTarget(
            **self.targets.stored().as_json(),
            tuning_queries=0,
            attempts=1,
            verified=self.verified.stored(),
            frontier=[],
        )


@dataclass(frozen=True)
class Rebuild:
    """A new index has to be built, for this reason."""

    reason: str


def carry_over(
    run: Run,
    row_N: Rows,
    take: Callable[[Rows], Floats],
    truth: Truth,
    *,
    sharded: bool = False,
) -> CarriedIndex | Rebuild:
    """The index of the previous run with changed items in a delta, or why it is not kept.

    Args:
        run: its `index.carry_over` is the greatest share of delta and tombstones.
        row_N: rows of the live items, rising.
        take: their vectors float32 [M, D] by position.
        truth: queries to measure with, and the correct answers.
        sharded: whether a new index would be in shards.

    Raises:
        ContractError: rows of the previous run have other ids now, or its files do not agree.
    """
    config = run.config.index
    previous = find_previous_index(run)
    if previous is None:
        return Rebuild("there is no index to carry over")
    stored = StoredIndex(previous.index)
    if stored.is_sharded != sharded:
        return Rebuild(f"the index before is in {'shards' if stored.is_sharded else 'one file'}")
    key = _changed_key(previous.index, run)
    if key:
        return Rebuild(f"{key} is another than before")
    now = run.artifact("export")
    if spec_of(now).space is not None and space_of(now) != space_of(previous.export):
        return Rebuild("the vectors have another space than before")
    spec, row_S = stored.spec, stored.base_rows()
    before = Vectors.of(previous.export, "items")
    items, before_R = Vectors.of(run.artifact("export"), "items"), np.flatnonzero(before.live())
    epsilon = config.carry_epsilon if items.dim == before.dim else 0
    slot_SD = _slot_vectors(stored, before, row_S) if epsilon else None
    same_R = unchanged_rows(items, before, any_bits=slot_SD is not None)
    if slot_SD is not None:
        same_R[row_S[row_S >= 0]] &= near_slots(items, row_S, slot_SD, epsilon)[row_S >= 0]
    layout = plan_layout(row_N, before_R, same_R[before_R], row_S)
    if layout.overhead > config.carry_over:
        return Rebuild(
            f"delta and tombstones are {layout.overhead:.0%} of the items, more than "
            f"index.carry_over = {config.carry_over:g}"
        )
    data = b"" if sharded else stored.read()
    base = _open_shards(stored) if sharded else kind_of(spec.kind).load(data, spec.parameters)
    if base.items != len(row_S):
        raise ContractError(
            f"has {base.items:,} slots, and rows are stored of {len(row_S):,}",
            where=stored.url,
        )
    delta_kind, delta = build_delta(take(layout.delta_M), config, run.config.run.seed)
    index = IncrementalIndex(base, delta, layout)
    carried = CarriedIndex(
        kind=spec.kind,
        index=index,
        before=stored,
        data=data,
        recall_when_built=_recall_when_built(stored),
        delta_kind=delta_kind,
        targets=Targets.of(config) if config.has_targets else None,
        verified=recall_interval(recalls(index, truth), truth.k),
        slot_SD=slot_SD,
    )
    failure = _failure(carried, truth)
    return Rebuild(failure) if failure else carried


def _open_shards(stored: StoredIndex) -> ShardedIndex:
    """The shards of a base, checked, and mapped into memory."""
    spec = stored.spec
    kind, shards = kind_of(spec.kind), spec.shards or []
    return ShardedIndex([map_index(stored.local_shard(s), kind, spec.parameters) for s in shards])


def _slot_vectors(stored: StoredIndex, before: Vectors, row_S: Rows) -> Floats:
    """The vectors that the slots of a base were built with, float32 [S, D]; zeros for tombstones.

    They are stored where an earlier night kept some that had moved: a distance is always that from
    what the index has, so that small moves of many nights add up.
    """
    kept = stored.base_vectors()
    if kept is not None:
        return kept
    slot_SD = np.zeros((len(row_S), before.dim), np.float32)
    live = np.flatnonzero(row_S >= 0)
    slot_SD[live] = before.gather(row_S[live])
    return slot_SD


def build_delta(item_MD: Floats, config: IndexConfig, seed: int) -> tuple[str, FaissIndex | None]:
    """The index over the items that have no slot: its kind, and None where there are none."""
    name = "flat" if len(item_MD) <= _FLAT_DELTA else "hnsw"
    if not len(item_MD):
        return name, None
    kind, (items, dim) = kind_of(name), item_MD.shape
    return name, kind.build(item_MD, kind.plan(items, dim, config), seed)


def _failure(carried: CarriedIndex, truth: Truth) -> str:
    """The first check that an incremental index fails, in words; "" for none."""
    recall, before, index = carried.verified, carried.recall_when_built, carried.index
    targets = carried.targets or Targets()
    size = carried.base_bytes + (len(index.delta.to_bytes()) if index.delta else 0)
    if recall.mean < before - MAX_RECALL_DROP:
        return f"recall@{K} is {recall.mean:.4f}, and was {before:.4f} when the base was built"
    if recall.low < targets.recall:
        return f"recall@{K} is at least {recall.low:.4f}, the target is {targets.recall:g}"
    if targets.bytes and size > targets.bytes:
        return f"it takes {size:,} bytes, index.max_bytes is {targets.bytes:,}"
    if targets.milliseconds and latency(index, truth).mean > targets.milliseconds:
        return f"a query takes more than index.max_latency_ms = {targets.milliseconds:g}"
    return ""


def _changed_key(index: Artifact, run: Run) -> str:
    """The first config key that shapes an index and has changed; "" for none."""
    before, now = read_fields(index.manifest.config), read_fields(run.fields("index"))
    keys = sorted((before.keys() | now.keys()) - {"index.carry_over", "index.carry_epsilon"})
    return next((key for key in keys if before.get(key) != now.get(key)), "")


def _recall_when_built(stored: StoredIndex) -> float:
    if stored.spec.incremental is not None:
        return float(stored.spec.incremental.recall_when_built)
    return float(stored.recall.recall)
