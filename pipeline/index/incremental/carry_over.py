"""Carrying an index over from the run before: what may be kept, how it is stored and opened.

Beside `items.faiss`, which is then the base byte by byte, and `ids.parquet`:

    base.parquet   row: of each place of the base, null for tombstones
    delta.faiss    the items that are not in the base by rising row; absent where there are none
    spec.json      living: {recall_when_built, delta: null or {kind, parameters}, delta_bytes, and
                   the counters of `Carried`}; null of an index that was built anew

Legend: N items, P places of the base, M items of the delta, D coordinates.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from embedmill.pipeline.config import IndexConfig
from embedmill.pipeline.errors import ContractError
from embedmill.pipeline.index.contract import Floats, Index, Rows
from embedmill.pipeline.index.incremental.base_index import BASE, Previous, find_previous, unchanged
from embedmill.pipeline.index.incremental.incremental_index import (
    Carried,
    Living,
    carry_over,
    positions,
)
from embedmill.pipeline.index.kinds import kind_of
from embedmill.pipeline.index.measure import K, Truth, latency, recalls
from embedmill.pipeline.index.selection.target import Interval, Promise, interval_of
from embedmill.pipeline.store.artifact import Artifact, Writer
from embedmill.pipeline.store.run import Run
from embedmill.pipeline.views.vectors import Vectors

__all__ = ["FALL", "Kept", "delta_of", "keep", "revive"]

# What recall may fall by since the base was built before all is built anew.
FALL = 0.005
_DELTA = "delta.faiss"
# A delta of more items than that is a graph: to compare all of them would take longer.
_FLAT = 1 << 14
_ROW = pa.schema([pa.field("row", pa.int64())])


@dataclass(frozen=True)
class Kept:
    """An index that was carried over, and what is stored of it.

    `kind` and `data` are those of the base, `recall_when_built` the recall that was measured
    when it was built. `promise` is None where nothing was promised.
    """

    kind: str
    living: Living
    data: bytes
    recall_when_built: float
    delta_kind: str
    promise: Promise | None
    verified: Interval

    def write(self, out: Writer, row_N: Rows) -> dict[str, Any]:
        """Write what is beside `items.faiss`; returns `living` of spec.json."""
        position_P = self.living.carried.position_P
        row_P = np.full(len(position_P), -1, np.int64)
        row_P[position_P >= 0] = row_N[position_P[position_P >= 0]]
        column = pa.array(row_P, mask=row_P < 0)
        out.write_table(BASE, pa.table([column], schema=_ROW))
        delta, told = self.living.delta, None
        data = b"" if delta is None else delta.save()
        if delta is not None:
            out.write(_DELTA, data)
            told = {"kind": self.delta_kind, "parameters": delta.parameters}
        return {
            "recall_when_built": self.recall_when_built,
            "delta": told,
            "delta_bytes": len(data),
            **self.living.carried.counters(),
        }

    def promise_json(self) -> dict[str, Any] | None:
        """`promise` of recall.json: nothing was tuned, what was tuned once still holds."""
        if self.promise is None:
            return None
        return {
            **self.promise.as_json(),
            "tuning_queries": 0,
            "attempts": 1,
            "verified": self.verified.as_json(),
            "frontier": [],
        }


def keep(run: Run, row_N: Rows, item_ND: Floats, truth: Truth) -> Kept | str:
    """The index of the run before with what has come and gone since, or why it is not kept.

    Args:
        run: its `index.carry_over` is the greatest share of delta and tombstones.
        row_N: rows of the live items, rising.
        item_ND: their vectors, float32 [N, D].
        truth: queries to measure with.

    Raises:
        ContractError: rows of the run before have other ids now, or its files do not agree.
    """
    config = run.config.index
    previous = find_previous(run)
    if previous is None:
        return "there is no index to carry over"
    if not previous.index.has("items.faiss"):
        return "the index before is in shards"
    changed = _changed(previous.index, run)
    if changed:
        return f"{changed} is another than before"
    spec, base_P = previous.index.read_json("spec.json"), previous.base_P()
    before = Vectors.of(previous.export, "items")
    items, before_R = Vectors.of(run.artifact("export"), "items"), np.flatnonzero(before.live())
    carried = carry_over(row_N, before_R, unchanged(items, before)[before_R], base_P)
    if carried.share > config.carry_over:
        return (
            f"delta and tombstones are {carried.share:.0%} of the items, more than "
            f"index.carry_over = {config.carry_over:g}"
        )
    data = previous.index.read("items.faiss")
    base = kind_of(spec["kind"]).load(data, spec["parameters"])
    if base.engine.ntotal != len(base_P):
        raise ContractError(
            f"holds {base.engine.ntotal:,} items, and {len(base_P):,} rows are told of it",
            where=previous.index.url("items.faiss"),
        )
    kind, delta = delta_of(item_ND[carried.delta_M], config, run.config.run.seed)
    living = Living(base, delta, carried)
    kept = Kept(
        spec["kind"], living, data, _recall_when_built(previous, spec), kind,
        Promise.of(config) if config.promised else None,
        interval_of(recalls(living, truth, item_ND), truth.k),
    )  # fmt: skip
    return _worn(kept, truth) or kept


def _worn(kept: Kept, truth: Truth) -> str:
    """What it no longer keeps; "" for nothing."""
    found, before = kept.verified, kept.recall_when_built
    promise = kept.promise or Promise()
    size = len(kept.data) + (len(kept.living.delta.save()) if kept.living.delta else 0)
    if found.mean < before - FALL:
        return f"recall@{K} is {found.mean:.4f}, and was {before:.4f} when the base was built"
    if found.low < promise.recall:
        return f"recall@{K} is {found.low:.4f} at least, and {promise.recall:g} is promised"
    if promise.bytes and size > promise.bytes:
        return f"it takes {size:,} bytes, and {promise.bytes:,} are promised"
    if promise.milliseconds and latency(kept.living, truth).mean > promise.milliseconds:
        return f"it takes longer than {promise.milliseconds:g} ms"
    return ""


def revive(artifact: Artifact, spec: Mapping[str, Any], base: Index) -> Living:
    """The index of an artifact that was carried over, its base already open.

    Raises:
        CorruptArtifactError: bytes differ from the manifest's sha256.
        ContractError: an item is in no place, or in two.
    """
    row_N = artifact.read_table("ids.parquet", ["row"])["row"].to_numpy()
    column = artifact.read_table(BASE, ["row"])["row"]
    row_P = np.asarray(column.fill_null(-1).to_numpy(), np.int64)
    position_P = positions(row_N, row_P)
    times_N = np.bincount(position_P[position_P >= 0], minlength=len(row_N))
    delta_M = np.flatnonzero(times_N == 0)
    said = spec["living"]
    counts = [said[name] for name in ("kept", "changed", "new", "removed")]
    told, delta = said["delta"], None
    if told is not None:
        delta = kind_of(told["kind"]).load(artifact.read(_DELTA), told["parameters"])
    held = 0 if delta is None else int(delta.engine.ntotal)
    twice, lost = times_N.max(initial=0) > 1, (position_P < 0).sum() > (row_P < 0).sum()
    if twice or lost or held != len(delta_M) or len(row_P) != base.engine.ntotal:
        raise ContractError(
            f"does not place each of {len(row_N):,} items once: {len(delta_M):,} are not in the "
            f"base of {base.engine.ntotal:,} places, the delta holds {held:,}",
            where=artifact.url(BASE),
        )
    return Living(base, delta, Carried(position_P, delta_M, *counts))


def _changed(index: Artifact, run: Run) -> str:
    """The first key that shapes an index and is another than in the run before; "" for none."""
    then, now = index.manifest.config, run.fields("index")
    keys = sorted((then.keys() | now.keys()) - {"index.carry_over"})
    return next((key for key in keys if then.get(key) != now.get(key)), "")


def _recall_when_built(previous: Previous, spec: Mapping[str, Any]) -> float:
    if spec.get("living"):
        return float(spec["living"]["recall_when_built"])
    return float(previous.index.read_json("recall.json")[f"recall@{K}"])


def delta_of(item_MD: Floats, config: IndexConfig, seed: int) -> tuple[str, Index | None]:
    """A small index over what is not in the base, and its kind."""
    kind = "flat" if len(item_MD) <= _FLAT else "hnsw"
    if not len(item_MD):
        return kind, None
    cls, (items, dim) = kind_of(kind), item_MD.shape
    return kind, cls.build(item_MD, cls.plan(items, dim, config), seed)
