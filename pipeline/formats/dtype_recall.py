"""How many of the best items are still found when vectors are stored in a number type.

Legend: B users, k answers each, N items of a block, D coordinates.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from embedmill.pipeline.formats.vector_table import convert
from embedmill.pipeline.index.exhaustive_search import exact_search
from embedmill.pipeline.index.query_users import choose_query_users
from embedmill.pipeline.index.searchable import K
from embedmill.pipeline.store.run import Run
from embedmill.pipeline.views.shards import Shards
from embedmill.pipeline.views.vectors import Vectors

__all__ = ["dtype_recall"]

Floats = NDArray[np.float32]
Rows = NDArray[np.int64]
Conversion = Callable[[Floats], Floats]


def dtype_recall(run: Run, dtype: str, scales: Mapping[str, float]) -> dict[str, float | int | str]:
    """recall@10 of exact search with users and items in a number type, against float32.

    The users are those that the index was measured with: they have held-out events and are picked
    by a hash. A result counts if its float32 score reaches that of the tenth best item, so that
    any of several items with equal scores will do.

    Args:
        run: a run whose `export` has finished.
        dtype: the number type.
        scales: the unit of an int8 for "users" and "items".

    Returns:
        `recall@10`, the number of `queries`, and the split that they are from (`queries_from`).
    """
    export, config = run.artifact("export"), run.config
    split, rows = choose_query_users(
        Shards(run.artifact("shards")), config.index.queries, config.run.seed
    )
    queries: dict[str, float | int | str] = {"queries": len(rows), "queries_from": split}
    if dtype == "float32" or not len(rows):
        return {f"recall@{K}": 1.0, **queries}
    items, user_BD = Vectors.of(export, "items"), Vectors.of(export, "users").gather(rows)

    def converted(side: str) -> Conversion:
        return lambda vector_ND: convert(vector_ND, dtype, scales[side]).astype(np.float32)

    exact_Bk = _best(items, user_BD, _unchanged)
    found_Bk = _best(items, converted("users")(user_BD), converted("items"))
    exact, found = (_scores(items, user_BD, row_Bk) for row_Bk in (exact_Bk, found_Bk))
    answered = np.isfinite(exact)
    least_B1 = np.where(answered, exact, np.inf).min(axis=1, keepdims=True)
    tolerance_B1 = 1e-6 * np.maximum(1.0, np.abs(least_B1))
    recall = float((found >= least_B1 - tolerance_B1).sum() / max(1, answered.sum()))
    return {f"recall@{K}": round(recall, 6), **queries}


def _unchanged(vector_ND: Floats) -> Floats:
    return vector_ND


def _best(items: Vectors, user_BD: Floats, of_items: Conversion) -> Rows:
    """Rows of the best live items for each user [B, k], best first; -1 where there are fewer."""

    def blocks() -> Iterator[tuple[int, Floats]]:
        for first, block_ND in items.blocks():
            yield first, of_items(block_ND)

    return exact_search(user_BD, blocks(), K, barred=np.flatnonzero(~items.live()))[1]


def _scores(items: Vectors, user_BD: Floats, row_Bk: Rows) -> NDArray[np.float64]:
    """Inner products in double precision [B, k]; -inf where there is no item."""
    rows, position = np.unique(np.maximum(row_Bk, 0), return_inverse=True)
    item_BkD = items.gather(rows)[position.reshape(row_Bk.shape)].astype(np.float64)
    score_Bk = np.einsum("bkd,bd->bk", item_BkD, user_BD.astype(np.float64))
    return np.where(row_Bk < 0, -np.inf, score_Bk)
