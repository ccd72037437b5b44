"""A sample of the items in scratch files, chosen by a hash of the row.

Which items are sampled depends on their rows and the seed alone, not on the number of workers.

Legend: N live items of a file, M sampled items, R items with an extreme coordinate, D
coordinates.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from embedmill.pipeline.index.query_users import splitmix64
from embedmill.pipeline.index.searchable import Floats
from embedmill.pipeline.index.vector_checks import not_finite_error
from embedmill.pipeline.store.storage import Storage
from embedmill.pipeline.task_pool import TaskPool
from embedmill.pipeline.views.vectors import LiveFile, LiveVectors, Vectors

__all__ = ["StoredSample", "read_sample", "sample_items"]

_MAX_HASH = (1 << 64) - 1

Hashes = NDArray[np.uint64]


@dataclass(frozen=True)
class StoredSample:
    """Scratch files of sampled items with their hashes, one for each item file that has any.

    `items` is the number of all live items, `sampled` that of the sampled ones. `extreme_RD`
    has for each coordinate the items where it is least and greatest, among all items, not just
    the sampled ones: the ranges of scalar codes are trained with these.
    """

    scratch: Storage
    paths: tuple[str, ...]
    items: int
    sampled: int
    extreme_RD: Floats

    def max_hash(self, wanted: int) -> int:
        """The hash up to which there are about `wanted` items."""
        return _max_hash(wanted, self.items)

    def lowest(self, wanted: int) -> Floats:
        """The items of the lowest hashes, by rising hash, float32 [at most `wanted`, D]."""
        hash_M = np.empty(0, np.uint64)
        item_MD = np.empty((0, self.extreme_RD.shape[1]), np.float32)
        for path in self.paths:
            hashes, items = read_sample(self.scratch, path)
            hashes, items = np.concatenate((hash_M, hashes)), np.concatenate((item_MD, items))
            order = np.argsort(hashes, kind="stable")[:wanted]
            hash_M, item_MD = hashes[order], items[order]
        return item_MD


@dataclass(frozen=True)
class _FileTask:
    """Sample a file: write its items whose hash is at most `max_hash`."""

    vectors: Vectors
    file: LiveFile
    max_hash: int
    seed: int
    scratch: Storage


@dataclass(frozen=True)
class _FileSample:
    """Of a file: the scratch file, sampled and extreme items, and items that are not finite."""

    path: str
    sampled: int
    extreme_RD: Floats
    not_finite: int
    first_bad_row: int


def sample_items(
    live_items: LiveVectors, pool: TaskPool, wanted: int, seed: int, scratch: Storage
) -> StoredSample:
    """Sample about `wanted` items, and check that all items are finite.

    Args:
        live_items: the live items.
        pool: runs a task for each file.
        wanted: number of items.
        seed: of the hash.
        scratch: folder of the sample.

    Raises:
        InputError: a vector has NaN or infinity in it.
    """
    items, max_hash = live_items.items, _max_hash(wanted, live_items.items)
    tasks = [
        _FileTask(live_items.vectors, file, max_hash, seed, scratch) for file in live_items.files
    ]
    paths, sampled, bad, first_bad_row = list[str](), 0, 0, -1
    extreme_RD = np.empty((0, live_items.dim), np.float32)
    for sample in pool.map(_sample_file, tasks):
        paths += [sample.path] if sample.sampled else []
        sampled += sample.sampled
        first_bad_row = sample.first_bad_row if sample.not_finite and not bad else first_bad_row
        bad += sample.not_finite
        extreme_RD = _extremes(np.concatenate((extreme_RD, sample.extreme_RD)))
    if bad:
        raise not_finite_error("items", bad, items, first_bad_row)
    return StoredSample(scratch, tuple(paths), items, sampled, extreme_RD)


def read_sample(scratch: Storage, path: str, max_hash: int = _MAX_HASH) -> tuple[Hashes, Floats]:
    """Hashes uint64 [M] and vectors float32 [M, D] of a file, up to a hash."""
    with scratch.open(path) as raw:
        hash_M = np.lib.format.read_array(raw, allow_pickle=False)
        item_MD = np.lib.format.read_array(raw, allow_pickle=False)
    wanted_M = hash_M <= np.uint64(max_hash)
    return (hash_M, item_MD) if wanted_M.all() else (hash_M[wanted_M], item_MD[wanted_M])


def _max_hash(wanted: int, items: int) -> int:
    return _MAX_HASH if wanted >= items else int(wanted / items * _MAX_HASH)


def _sample_file(task: _FileTask) -> _FileSample:
    row_N, item_ND = LiveVectors(task.vectors, (task.file,)).read(task.file)
    bad_N = ~np.isfinite(item_ND.sum(axis=1, dtype=np.float64))
    if bad_N.any():
        none_RD = np.empty((0, item_ND.shape[1]), np.float32)
        return _FileSample("", 0, none_RD, int(bad_N.sum()), int(row_N[bad_N.argmax()]))
    hash_N = splitmix64(row_N, task.seed)
    sampled_N, path = hash_N <= np.uint64(task.max_hash), f"sample/{task.file.number:05d}.npy"
    if sampled_N.any():
        with task.scratch.writer(path) as out:
            np.lib.format.write_array(out, hash_N[sampled_N], allow_pickle=False)
            np.lib.format.write_array(out, item_ND[sampled_N], allow_pickle=False)
    return _FileSample(path, int(sampled_N.sum()), _extremes(item_ND), 0, -1)


def _extremes(item_ND: Floats) -> Floats:
    """For each coordinate the first item where it is least and the first where it is greatest."""
    if not len(item_ND):
        return item_ND
    extreme = np.unique(np.concatenate((item_ND.argmin(axis=0), item_ND.argmax(axis=0))))
    extreme_RD: Floats = item_ND[extreme]
    return extreme_RD
