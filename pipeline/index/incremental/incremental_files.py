"""Files of an incremental index (`embedmill.schemas.index`): written, and opened again.

Legend: N live items, S slots of the base.
"""

from __future__ import annotations

import io

import numpy as np
import pyarrow as pa

from embedmill.pipeline.errors import ContractError
from embedmill.pipeline.index.incremental.base_layout import Layout, positions_of
from embedmill.pipeline.index.incremental.incremental_index import Base, IncrementalIndex
from embedmill.pipeline.index.kinds import kind_of
from embedmill.pipeline.index.searchable import Floats, Rows
from embedmill.pipeline.store.artifact_writer import Writer
from embedmill.pipeline.views.index import StoredIndex
from embedmill.schemas.index import BASE_ROWS, BASE_ROWS_FILE, BASE_VECTORS_FILE, IncrementalSpec

__all__ = ["open_incremental", "write_base_rows", "write_base_vectors"]


def write_base_rows(out: Writer, layout: Layout, row_N: Rows) -> None:
    """Write the row of each slot; `row_N` are the rows of the live items, rising."""
    row_S = np.full(len(layout.position_S), -1, np.int64)
    live_S = layout.position_S >= 0
    row_S[live_S] = row_N[layout.position_S[live_S]]
    out.write_table(BASE_ROWS_FILE, pa.table([pa.array(row_S, mask=row_S < 0)], schema=BASE_ROWS))


def write_base_vectors(out: Writer, layout: Layout, slot_SD: Floats) -> None:
    """Write the vectors that the slots were built with, float32 [S, D], zeros for tombstones."""
    kept_SD = np.where((layout.position_S >= 0)[:, None], slot_SD, np.float32(0))
    data = io.BytesIO()
    np.save(data, kept_SD.astype(np.float32), allow_pickle=False)
    out.write(BASE_VECTORS_FILE, data.getvalue())


def open_incremental(stored: StoredIndex, spec: IncrementalSpec, base: Base) -> IncrementalIndex:
    """The incremental index of an artifact, its base already open.

    Args:
        stored: the artifact.
        spec: what it says of base and delta.
        base: the opened base.

    Raises:
        CorruptArtifactError: bytes differ from the manifest's sha256.
        ContractError: an item is in no slot and not in the delta, or in two of them.
    """
    row_N, row_S = stored.rows(), stored.base_rows()
    position_S = positions_of(row_N, row_S)
    slots_N = np.bincount(position_S[position_S >= 0], minlength=len(row_N))
    delta_M = np.flatnonzero(slots_N == 0)
    delta = None
    if spec.delta is not None:
        kind = kind_of(spec.delta.kind)
        delta = kind.load(stored.read_delta(), spec.delta.parameters)
    in_delta = 0 if delta is None else delta.items
    twice, unknown = slots_N.max(initial=0) > 1, (position_S < 0).sum() > (row_S < 0).sum()
    if twice or unknown or in_delta != len(delta_M) or len(row_S) != base.items:
        raise ContractError(
            f"does not have each of {len(row_N):,} items once: {len(delta_M):,} are not in the "
            f"{base.items:,} slots of the base, the delta holds {in_delta:,}",
            where=stored.artifact.url(BASE_ROWS_FILE),
        )
    layout = Layout(position_S, delta_M, spec.kept, spec.changed, spec.new, spec.removed)
    return IncrementalIndex(base, delta, layout)
