"""Shared rows of a vocabulary: rows without an id, which ids out of the vocabulary have in common.

An id gets its shared row by a hash of the id and a seed. Legend: E events.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from embedmill.schemas.vocab import SideRows, VocabSpec

__all__ = ["is_shared", "is_shared_sql", "shared_row_sql", "shared_slot_sql", "side_rows"]


def side_rows(spec: VocabSpec, side: str) -> SideRows:
    """Rows of "user" or "item"."""
    return spec.users if side == "user" else spec.items


def is_shared(rows: SideRows, row_E: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Whether each of some rows is a shared one, bool [E]."""
    return (row_E >= rows.shared_from) & (row_E < rows.shared_from + rows.shared)


def is_shared_sql(rows: SideRows, column: str) -> str:
    """SQL: whether the row in a column is a shared one."""
    return f"({column} >= {rows.shared_from} and {column} < {rows.shared_from + rows.shared})"


def shared_row_sql(spec: VocabSpec, side: str) -> str:
    """SQL: the shared row of the id in the column named `side` ("user" or "item")."""
    rows = side_rows(spec, side)
    return f"{rows.shared_from} + {shared_slot_sql(side, spec.seed, rows.shared)}"


def shared_slot_sql(column: str, seed: int, slots: int) -> str:
    """SQL: which of `slots` shared rows the id in a column has, from 0."""
    return f"pmod(xxhash64({column}, cast({seed} as bigint)), {slots})"
