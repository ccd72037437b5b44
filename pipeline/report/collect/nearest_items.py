"""Nearest items by cosine, exact over all items.

Legend: N items of a block, Q query items, D dimensions of the model.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from embedmill.pipeline.report.collect.item_vectors import ItemVectors, describe_rows
from embedmill.schemas.report import Item, ItemWithNeighbours, Neighbour, Neighbours

__all__ = ["NEIGHBOURS", "WELL_KNOWN", "nearest_items"]

NEIGHBOURS = 5  # shown per item
WELL_KNOWN = 12  # items shown where the config names none

Floats = npt.NDArray[np.float64]
Ranked = list[tuple[int, float]]  # (row, cosine), best first


def nearest_items(items: ItemVectors, names: Sequence[str]) -> Neighbours:
    """Nearest items by cosine of some items.

    Args:
        items: the items of a run.
        names: titles or ids of the query items; empty for the most frequent ones.

    Returns:
        the query items, in the order of `names`, and the names that no item has.
    """
    rows, not_found = _resolve(items, names)
    ranked = _nearest(items, rows)
    described = describe_rows(items, {*rows, *(row for near in ranked for row, _ in near)})
    found = [
        _with_neighbours(described[row], [(described[r], cosine) for r, cosine in near])
        for row, near in zip(rows, ranked, strict=True)
    ]
    return Neighbours(items=found, not_found=not_found)


def _with_neighbours(item: Item, near: Sequence[tuple[Item, float]]) -> ItemWithNeighbours:
    neighbours = [Neighbour(**one.as_json(), cosine=cosine) for one, cosine in near]
    return ItemWithNeighbours(**item.as_json(), neighbours=neighbours)


def _resolve(items: ItemVectors, names: Sequence[str]) -> tuple[list[int], list[str]]:
    """Rows of the named items (the most frequent item of a title), and names that no item has."""
    if not names:
        return items.most_frequent(WELL_KNOWN).row_N.tolist(), []
    candidates = {name: [name, *ids] for name, ids in items.metadata.ids_titled(names).items()}
    wanted = pa.array(
        sorted({raw_id for ids in candidates.values() for raw_id in ids}), pa.string()
    )
    rank: dict[str, tuple[int, int]] = {}  # (-count, row)
    for block in items.blocks(vectors=False):
        for i in np.flatnonzero(pc.is_in(block.ids, wanted).to_numpy(zero_copy_only=False)):
            rank[block.ids[int(i)].as_py()] = (-int(block.count_N[i]), int(block.row_N[i]))
    rows = {
        name: min(rank[raw_id] for raw_id in ids if raw_id in rank)[1]
        for name, ids in candidates.items()
        if any(raw_id in rank for raw_id in ids)
    }
    distinct = list(dict.fromkeys(rows[name] for name in names if name in rows))
    return distinct, [name for name in dict.fromkeys(names) if name not in rows]


def _nearest(items: ItemVectors, rows: Sequence[int]) -> list[Ranked]:
    """The neighbours of each row, ties by lower row."""
    best: list[Ranked] = [[] for _ in rows]
    if not rows:
        return best
    queries_QD = _unit(items.of_rows(rows).vector_ND)
    for block in items.blocks():
        if not len(block.row_N):
            continue
        # Rounded before comparing, so that the order does not depend on the last bits of BLAS.
        scores_QN = np.round(queries_QD @ _unit(block.vector_ND).T, 6)
        for q, row in enumerate(rows):
            scores_QN[q, block.row_N == row] = -np.inf
            best[q] = _merge(best[q], scores_QN[q], block.row_N)
    return [[(row, round(score, 4)) for row, score in near] for near in best]


def _merge(best: Ranked, scores_N: Floats, row_N: npt.NDArray[np.int64]) -> Ranked:
    """The best so far and those of a block that can be among the best."""
    k = min(NEIGHBOURS, len(scores_N))
    floor = np.partition(scores_N, len(scores_N) - k)[len(scores_N) - k]
    new = [(int(row_N[i]), float(scores_N[i])) for i in np.flatnonzero(scores_N >= floor)]
    ranked = sorted(best + new, key=lambda pair: (-pair[1], pair[0]))
    return [pair for pair in ranked if np.isfinite(pair[1])][:NEIGHBOURS]


def _unit(vectors_ND: npt.NDArray[np.float32]) -> Floats:
    """Vectors of length 1; a zero vector stays zero, its cosine with any other is 0."""
    wide_ND = vectors_ND.astype(np.float64)
    norms_N1 = np.linalg.norm(wide_ND, axis=1, keepdims=True)
    unit_ND: Floats = np.divide(wide_ND, norms_N1, out=np.zeros_like(wide_ND), where=norms_N1 > 0)
    return unit_ND
