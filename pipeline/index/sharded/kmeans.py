"""k-means whose assignment step is distributed (Lloyd, IEEE Trans. Inf. Theory 1982).

Every round each task finds the nearest centroid of its share of the sample and answers with sums
and counts; the driver holds centroids alone. Sums are in float64, over shares that are fixed by
the parts of the catalogue and added in their order: the number of workers changes no byte.

Legend: M items of a share, D coordinates, E padded ones, L lists.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from embedmill.pipeline.index.contract import Floats, Rows, threads
from embedmill.pipeline.index.kinds.padding import padded
from embedmill.pipeline.index.measure import Doubles
from embedmill.pipeline.index.sharded.sample import Drawn, read_drawn
from embedmill.pipeline.index.sharded.task_pool import Pool
from embedmill.pipeline.store.storage import Storage

__all__ = ["Turn", "learn_lists"]

# As for lists that are learned in one place: items looked at per list, and rounds.
LOOKED_AT = 64
_ROUNDS = 10
# Shares of the sample, each a task of every round.
_SHARES = 16
# By which the halves of a list that is split move apart.
_APART = 1 / 1024


@dataclass(frozen=True)
class Turn:
    """What is done to vectors first: zeros up to a multiple of `segments`, then a rotation."""

    segments: int = 1
    rotation_EE: Floats | None = None

    @staticmethod
    def of(segments: int, transform: Any) -> Turn:
        """Of a FAISS transform, or of none."""
        if transform is None:
            return Turn(segments)
        wide = transform.d_in
        rotation = faiss.vector_to_array(transform.A).reshape(transform.d_out, wide)
        return Turn(segments, rotation.copy())

    def __call__(self, item_MD: Floats) -> Floats:
        """float32 [M, E]."""
        item_ME = np.ascontiguousarray(padded(item_MD, self.segments))
        if self.rotation_EE is None:
            return item_ME
        transform = faiss.LinearTransform(item_ME.shape[1], len(self.rotation_EE))
        faiss.copy_array_to_vector(self.rotation_EE.ravel(), transform.A)
        transform.is_trained = True
        turned: Floats = transform.apply(item_ME)
        return turned


@dataclass(frozen=True)
class _Share:
    """A task: files of the sample, up to a hash, and the file of centroids."""

    scratch: Storage
    paths: tuple[str, ...]
    below: int
    centroids: str
    turn: Turn


def learn_lists(pool: Pool, drawn: Drawn, lists: int, turn: Turn) -> Floats:
    """Centres of so many lists, float32 [L, E]; begins with the items of the lowest hashes.

    A list that draws no item takes half of the largest, as in FAISS.
    """
    with threads(1):
        centroid_LE = turn(drawn.first(lists))
    if len(centroid_LE) < lists:  # fewer were drawn than lists: repeated, they stay empty
        centroid_LE = np.resize(centroid_LE, (lists, centroid_LE.shape[1]))
    below = drawn.below(lists * LOOKED_AT)
    shares = [s for s in (drawn.paths[i::_SHARES] for i in range(_SHARES)) if s]
    for round_ in range(_ROUNDS):
        path = f"centroids-{round_}.npy"
        with drawn.scratch.writer(path) as out:
            np.lib.format.write_array(out, centroid_LE, allow_pickle=False)
        sum_LE, count_L = np.zeros(centroid_LE.shape), np.zeros(lists, np.int64)
        tasks = [_Share(drawn.scratch, share, below, path, turn) for share in shares]
        for some_LE, some_L in pool.map(_assign, tasks):
            sum_LE += some_LE
            count_L += some_L
        centroid_LE = _moved(centroid_LE, sum_LE, count_L)
        drawn.scratch.remove(path)
    return centroid_LE


def _assign(share: _Share) -> tuple[Doubles, Rows]:
    """Of each centroid the sum of the items nearest to it, float64 [L, E], and their number."""
    with share.scratch.open(share.centroids) as raw:
        centroid_LE: Floats = np.lib.format.read_array(raw, allow_pickle=False)
    sum_LE = np.zeros(centroid_LE.shape)
    count_L = np.zeros(len(centroid_LE), np.int64)
    with threads(1):
        for path in share.paths:
            _, item_MD = read_drawn(share.scratch, path, share.below)
            if len(item_MD):
                _add(share.turn(item_MD), centroid_LE, sum_LE, count_L)
    return sum_LE, count_L


def _add(item_ME: Floats, centroid_LE: Floats, sum_LE: Doubles, count_L: Rows) -> None:
    _, near_M1 = faiss.knn(item_ME, centroid_LE, 1)
    near_M: NDArray[np.int64] = near_M1[:, 0]
    order = np.argsort(near_M, kind="stable")
    which, starts = np.unique(near_M[order], return_index=True)
    sum_LE[which] += np.add.reduceat(item_ME[order].astype(np.float64), starts, axis=0)
    count_L += np.bincount(near_M, minlength=len(count_L))


def _moved(centroid_LE: Floats, sum_LE: Doubles, count_L: Rows) -> Floats:
    """Each centroid in the middle of its items; those without any beside one with many."""
    moved_LE = centroid_LE.astype(np.float64)
    held = count_L > 0
    moved_LE[held] = sum_LE[held] / count_L[held, None]
    count_L = count_L.copy()
    sign_E = np.where(np.arange(centroid_LE.shape[1]) % 2, -_APART, _APART)
    for empty in np.flatnonzero(~held):
        full = int(count_L.argmax())
        moved_LE[empty] = moved_LE[full] * (1 + sign_E)
        moved_LE[full] *= 1 - sign_E
        count_L[empty] = count_L[full] // 2
        count_L[full] -= count_L[empty]
    return moved_LE.astype(np.float32)
