"""Exported vectors in memory, as a base and the deltas after it leave them.

Legend: N rows, D coordinates as exported.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from embedmill.pipeline.store.artifact import Artifact
from embedmill.pipeline.views.vectors import Vectors, spec_of
from embedmill.schemas.export import FILES, embeddings

__all__ = ["COUNTS", "SideDelta", "schema_of", "state_of"]

# Of rows whose events alone have changed.
COUNTS = pa.schema([pa.field("row", pa.int64()), pa.field("count", pa.int64())])


def state_of(export: Artifact) -> dict[str, pa.Table]:
    """All rows of both sides of an export."""
    return {side: Vectors.of(export, side).table() for side in FILES}


@dataclass(frozen=True)
class SideDelta:
    """What one side needs: rows to write (`embeddings`), and counts of others (`COUNTS`)."""

    rows: pa.Table
    counts: pa.Table
    kinds: Mapping[str, int]

    @staticmethod
    def between(before: pa.Table, now: pa.Table, epsilon: float) -> SideDelta:
        """Rows that came, went, came back, or moved beyond epsilon times the mean length before.

        Args:
            before: a side as a reader has it.
            now: the side as it is to be; rows of `before` have the same ids.
            epsilon: 0 takes every row that differs in any bit of its vector.
        """
        known = before.num_rows
        old, new = before, now.slice(0, known)
        other_N = _differs(old["live"], new["live"])
        if "bias" in old.column_names:
            other_N |= _bits(old, "bias") != _bits(new, "bias")
        moved_N = _moved(_matrix(old), _matrix(new), epsilon)
        changed_N = other_N | moved_N
        counted_N = _differs(old["count"], new["count"]) & ~changed_N
        chosen = np.concatenate((np.flatnonzero(changed_N), np.arange(known, now.num_rows)))
        rows = now.take(pa.array(chosen))
        counts = new.select(["row", "count"]).filter(pa.array(counted_N)).cast(COUNTS)
        was, is_now = (side["live"].to_numpy(zero_copy_only=False) for side in (old, new))
        kinds = {
            "came": int(pc.sum(now["live"].slice(known)).as_py() or 0) + int((is_now & ~was).sum()),
            "went": int((was & ~is_now).sum()),
            "moved": int((moved_N & was & is_now).sum()),
            "rows": rows.num_rows,
            "counts": counts.num_rows,
        }
        return SideDelta(rows, counts, kinds)

    def applied(self, before: pa.Table) -> pa.Table:
        """A side after this delta."""
        rows = pc.max(self.rows["row"]).as_py()
        size = max(before.num_rows, -1 if rows is None else rows + 1)
        place = np.arange(size)
        own = self.rows["row"].to_numpy()
        place[own] = before.num_rows + np.arange(len(own))
        table = pa.concat_tables([before, self.rows.cast(before.schema)]).take(pa.array(place))
        count = table["count"].to_numpy().copy()
        count[self.counts["row"].to_numpy()] = self.counts["count"].to_numpy()
        at = table.schema.get_field_index("count")
        table = table.set_column(at, table.schema.field(at), pa.array(count))
        return table.combine_chunks()


def _differs(one: Any, other: Any) -> np.ndarray[Any, np.dtype[np.bool_]]:
    values: np.ndarray[Any, np.dtype[np.bool_]] = one.to_numpy(
        zero_copy_only=False
    ) != other.to_numpy(zero_copy_only=False)
    return values


def _bits(table: pa.Table, column: str) -> np.ndarray[Any, np.dtype[np.uint32]]:
    bits: np.ndarray[Any, np.dtype[np.uint32]] = table[column].to_numpy().view(np.uint32)
    return bits


def _matrix(table: pa.Table) -> np.ndarray[Any, np.dtype[np.float32]]:
    column = table["vector"].combine_chunks()
    flat = column.flatten().to_numpy(zero_copy_only=False)
    matrix: np.ndarray[Any, np.dtype[np.float32]] = flat.reshape(max(1, len(column)), -1)
    return matrix[: len(column)]


def _moved(
    old_ND: np.ndarray[Any, np.dtype[np.float32]],
    new_ND: np.ndarray[Any, np.dtype[np.float32]],
    epsilon: float,
) -> np.ndarray[Any, np.dtype[np.bool_]]:
    if not epsilon:
        differs_N: np.ndarray[Any, np.dtype[np.bool_]] = (
            np.ascontiguousarray(old_ND).view(np.uint32)
            != np.ascontiguousarray(new_ND).view(np.uint32)
        ).any(1)
        return differs_N
    length = float(np.linalg.norm(old_ND.astype(np.float64), axis=1).mean()) if len(old_ND) else 1.0
    distance_N = np.linalg.norm(new_ND.astype(np.float64) - old_ND, axis=1)
    far_N: np.ndarray[Any, np.dtype[np.bool_]] = distance_N > epsilon * (length or 1.0)
    return far_N


def schema_of(export: Artifact) -> pa.Schema:
    """The schema of both sides."""
    spec = spec_of(export)
    return embeddings(spec.dim, bias=spec.bias)
