"""How many of the best items a number type keeps, asked with real users.

Legend: B users, k answers each, N items of a block, D coordinates.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np
import torch
from numpy.typing import NDArray

from embedmill.pipeline.formats.contract import in_type
from embedmill.pipeline.index.query_users import choose_query_users
from embedmill.pipeline.index.searchable import K
from embedmill.pipeline.score import top_k
from embedmill.pipeline.store.run import Run
from embedmill.pipeline.views.vectors import Vectors

__all__ = ["kept"]

Floats = NDArray[np.float32]
Rows = NDArray[np.int64]


def kept(run: Run, dtype: str, scales: Mapping[str, float]) -> dict[str, float | int | str]:
    """recall@10 of exact search, users and items both in the type, against float32.

    Users are those that the index was measured with: held out, picked by a hash. An answer
    counts whose float32 score reaches that of the tenth best, whichever of equal ones it is.
    """
    export, config = run.artifact("export"), run.config
    split, rows = choose_query_users(run.artifact("shards"), config.index.queries, config.run.seed)
    said: dict[str, float | int | str] = {"queries": len(rows), "queries_from": split}
    if dtype == "float32" or not len(rows):
        return {f"recall@{K}": 1.0, **said}
    items, user_BD = Vectors.of(export, "items"), Vectors.of(export, "users").gather(rows)

    def coarse(side: str) -> Callable[[Floats], Floats]:
        return lambda vector_ND: in_type(vector_ND, dtype, scales[side]).astype(np.float32)

    def best(of_users: Callable[[Floats], Floats], of_items: Callable[[Floats], Floats]) -> Rows:
        def blocks() -> Iterator[tuple[int, torch.Tensor]]:
            for first, block_ND in items.blocks():
                yield first, torch.from_numpy(of_items(block_ND))

        barred = torch.from_numpy(np.flatnonzero(~items.live()))
        found = top_k(torch.from_numpy(of_users(user_BD)), blocks(), K, None, barred)[1]
        rows: Rows = found.numpy()
        return rows

    asked = (best(_same, _same), best(coarse("users"), coarse("items")))
    truth, found = (_scores(items, user_BD, row_Bk) for row_Bk in asked)
    wanted = np.isfinite(truth)
    least_B1 = np.where(wanted, truth, np.inf).min(axis=1, keepdims=True)
    slack = 1e-6 * np.maximum(1.0, np.abs(least_B1))
    share = float((found >= least_B1 - slack).sum() / max(1, wanted.sum()))
    return {f"recall@{K}": round(share, 6), **said}


def _same(vector_ND: Floats) -> Floats:
    return vector_ND


def _scores(items: Vectors, user_BD: Floats, row_Bk: Rows) -> NDArray[np.float64]:
    """float32 inner products in double precision [B, k]; -inf where there is no answer."""
    rows, at = np.unique(np.maximum(row_Bk, 0), return_inverse=True)
    item_BkD = items.gather(rows)[at.reshape(row_Bk.shape)].astype(np.float64)
    score_Bk = np.einsum("bkd,bd->bk", item_BkD, user_BD.astype(np.float64))
    return np.where(row_Bk < 0, -np.inf, score_Bk)
