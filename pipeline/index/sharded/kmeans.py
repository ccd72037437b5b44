"""k-means whose assignment step is distributed (Lloyd, IEEE Trans. Inf. Theory 1982).

In every round each task finds the nearest centroid of its share of the sample and returns sums
and counts; the driver holds the centroids alone. Sums are in float64, over shares that the item
files determine, and are added in order: the number of workers changes no byte.

Legend: M items of a share, D coordinates, E coordinates after padding, L lists.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from embedmill.pipeline.index.faiss_threads import faiss_threads
from embedmill.pipeline.index.kinds.padding import padded
from embedmill.pipeline.index.measure import Doubles
from embedmill.pipeline.index.searchable import Floats, Rows
from embedmill.pipeline.index.sharded.stored_sample import StoredSample, read_sample
from embedmill.pipeline.store.storage import Storage
from embedmill.pipeline.task_pool import TaskPool

__all__ = ["TRAINING_ITEMS_PER_LIST", "VectorTransform", "train_centroids_by_tasks"]

# Training items per list, and rounds: as in `kinds.inverted.train_centroids`.
TRAINING_ITEMS_PER_LIST = 64
_ROUNDS = 10
# Shares of the sample; each is a task in every round.
_SHARES = 16
# When a list is split, its two centroids move apart by this share of each coordinate.
_SPLIT = 1 / 1024


@dataclass(frozen=True)
class VectorTransform:
    """What is applied to vectors first: padding to a multiple of `segments`, then a rotation."""

    segments: int = 1
    rotation_EE: Floats | None = None

    @staticmethod
    def of(segments: int, rotation: Any) -> VectorTransform:
        """From a FAISS linear transform, or None where there is no rotation."""
        if rotation is None:
            return VectorTransform(segments)
        matrix = faiss.vector_to_array(rotation.A).reshape(rotation.d_out, rotation.d_in)
        return VectorTransform(segments, matrix.copy())

    def __call__(self, item_MD: Floats) -> Floats:
        """Transformed vectors, float32 [M, E]."""
        item_ME = np.ascontiguousarray(padded(item_MD, self.segments))
        if self.rotation_EE is None:
            return item_ME
        transform = faiss.LinearTransform(item_ME.shape[1], len(self.rotation_EE))
        faiss.copy_array_to_vector(self.rotation_EE.ravel(), transform.A)
        transform.is_trained = True
        rotated_ME: Floats = transform.apply(item_ME)
        return rotated_ME


@dataclass(frozen=True)
class _ShareTask:
    """Assign the items of some sample files, up to a hash, to the centroids of a file."""

    scratch: Storage
    paths: tuple[str, ...]
    max_hash: int
    centroids: str
    transform: VectorTransform


def train_centroids_by_tasks(
    pool: TaskPool, sample: StoredSample, lists: int, transform: VectorTransform
) -> Floats:
    """Centroids of so many lists, float32 [L, E].

    The items of the lowest hashes are the initial centroids. A list to which no item is assigned
    takes half of the largest one, as in FAISS.

    Args:
        pool: runs the assignment.
        sample: items to train with.
        lists: L.
        transform: applied to the items first.
    """
    with faiss_threads(1):
        centroid_LE = transform(sample.lowest(lists))
    if len(centroid_LE) < lists:  # fewer items than lists: repeated centroids stay without items
        centroid_LE = np.resize(centroid_LE, (lists, centroid_LE.shape[1]))
    max_hash = sample.max_hash(lists * TRAINING_ITEMS_PER_LIST)
    shares = [s for s in (sample.paths[i::_SHARES] for i in range(_SHARES)) if s]
    for round_ in range(_ROUNDS):
        path = f"centroids-{round_}.npy"
        with sample.scratch.writer(path) as out:
            np.lib.format.write_array(out, centroid_LE, allow_pickle=False)
        sum_LE, count_L = np.zeros(centroid_LE.shape), np.zeros(lists, np.int64)
        tasks = [_ShareTask(sample.scratch, share, max_hash, path, transform) for share in shares]
        for share_sum_LE, share_count_L in pool.map(_assign, tasks):
            sum_LE += share_sum_LE
            count_L += share_count_L
        centroid_LE = _updated(centroid_LE, sum_LE, count_L)
        sample.scratch.remove(path)
    return centroid_LE


def _assign(task: _ShareTask) -> tuple[Doubles, Rows]:
    """The sum float64 [L, E] and number [L] of the items nearest to each centroid."""
    with task.scratch.open(task.centroids) as raw:
        centroid_LE: Floats = np.lib.format.read_array(raw, allow_pickle=False)
    sum_LE = np.zeros(centroid_LE.shape)
    count_L = np.zeros(len(centroid_LE), np.int64)
    with faiss_threads(1):
        for path in task.paths:
            _, item_MD = read_sample(task.scratch, path, task.max_hash)
            if len(item_MD):
                _add_nearest(task.transform(item_MD), centroid_LE, sum_LE, count_L)
    return sum_LE, count_L


def _add_nearest(item_ME: Floats, centroid_LE: Floats, sum_LE: Doubles, count_L: Rows) -> None:
    """Add items to the sum and count of their nearest centroid, in place."""
    _, nearest_M1 = faiss.knn(item_ME, centroid_LE, 1)
    nearest_M: NDArray[np.int64] = nearest_M1[:, 0]
    order = np.argsort(nearest_M, kind="stable")
    lists, starts = np.unique(nearest_M[order], return_index=True)
    sum_LE[lists] += np.add.reduceat(item_ME[order].astype(np.float64), starts, axis=0)
    count_L += np.bincount(nearest_M, minlength=len(count_L))


def _updated(centroid_LE: Floats, sum_LE: Doubles, count_L: Rows) -> Floats:
    """Each centroid at the mean of its items; an empty list splits the largest one."""
    mean_LE = centroid_LE.astype(np.float64)
    filled_L = count_L > 0
    mean_LE[filled_L] = sum_LE[filled_L] / count_L[filled_L, None]
    count_L = count_L.copy()
    sign_E = np.where(np.arange(centroid_LE.shape[1]) % 2, -_SPLIT, _SPLIT)
    for empty in np.flatnonzero(~filled_L):
        largest = int(count_L.argmax())
        mean_LE[empty] = mean_LE[largest] * (1 + sign_E)
        mean_LE[largest] *= 1 - sign_E
        count_L[empty] = count_L[largest] // 2
        count_L[largest] -= count_L[empty]
    return mean_LE.astype(np.float32)
