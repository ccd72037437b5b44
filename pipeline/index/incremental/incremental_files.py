"""Files of an incremental index: written, and opened again.

Beside `items.faiss`, which is the unchanged base, and `ids.parquet`:

    base.parquet   row: of each slot of the base, null for tombstones
    delta.faiss    the items without a slot, by rising row; absent where there are none
    spec.json      living: {recall_when_built, delta: null or {kind, parameters}, delta_bytes, and
                   the counters of `Layout`}

Legend: N live items, S slots of the base.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from embedmill.pipeline.errors import ContractError
from embedmill.pipeline.index.incremental.incremental_index import IncrementalIndex
from embedmill.pipeline.index.incremental.layout import Layout, positions_of
from embedmill.pipeline.index.incremental.previous_index import BASE
from embedmill.pipeline.index.kinds import kind_of
from embedmill.pipeline.index.searchable import FaissIndex, Rows
from embedmill.pipeline.store.artifact import Artifact, Writer

__all__ = ["DELTA", "open_incremental", "write_base_rows"]

DELTA = "delta.faiss"
_SCHEMA = pa.schema([pa.field("row", pa.int64())])


def write_base_rows(out: Writer, layout: Layout, row_N: Rows) -> None:
    """Write `base.parquet`; `row_N` are the rows of the live items, rising."""
    row_S = np.full(len(layout.position_S), -1, np.int64)
    live_S = layout.position_S >= 0
    row_S[live_S] = row_N[layout.position_S[live_S]]
    out.write_table(BASE, pa.table([pa.array(row_S, mask=row_S < 0)], schema=_SCHEMA))


def open_incremental(
    artifact: Artifact, spec: Mapping[str, Any], base: FaissIndex
) -> IncrementalIndex:
    """The incremental index of an artifact, its base already open.

    Raises:
        CorruptArtifactError: bytes differ from the manifest's sha256.
        ContractError: an item has no place, or two.
    """
    row_N = artifact.read_table("ids.parquet", ["row"])["row"].to_numpy()
    column = artifact.read_table(BASE, ["row"])["row"]
    row_S = np.asarray(column.fill_null(-1).to_numpy(), np.int64)
    position_S = positions_of(row_N, row_S)
    slots_N = np.bincount(position_S[position_S >= 0], minlength=len(row_N))
    delta_M = np.flatnonzero(slots_N == 0)
    incremental, delta = spec["living"], None
    counts = [incremental[name] for name in ("kept", "changed", "new", "removed")]
    delta_spec = incremental["delta"]
    if delta_spec is not None:
        kind = kind_of(delta_spec["kind"])
        delta = kind.load(artifact.read(DELTA), delta_spec["parameters"])
    in_delta = 0 if delta is None else delta.items
    twice, unknown = slots_N.max(initial=0) > 1, (position_S < 0).sum() > (row_S < 0).sum()
    if twice or unknown or in_delta != len(delta_M) or len(row_S) != base.items:
        raise ContractError(
            f"does not place each of {len(row_N):,} items once: {len(delta_M):,} are not in the "
            f"base of {base.items:,} places, the delta holds {in_delta:,}",
            where=artifact.url(BASE),
        )
    return IncrementalIndex(base, delta, Layout(position_S, delta_M, *counts))
