"""A sample of a catalogue that is not held: drawn by a hash of the row, kept in files by part.

Which items are drawn depends on their rows and the seed alone, not on how many workers draw.

Legend: N items of a part, M drawn ones, R in all, D coordinates.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from embedmill.pipeline.errors import InputError
from embedmill.pipeline.index.contract import Floats
from embedmill.pipeline.index.measure import mix
from embedmill.pipeline.index.sharded.catalogue import Catalogue, Part, live_vectors
from embedmill.pipeline.index.sharded.task_pool import Pool
from embedmill.pipeline.store.storage import Storage
from embedmill.pipeline.views.vectors import Vectors

__all__ = ["Drawn", "draw", "read_drawn"]

_ALL = (1 << 64) - 1

Hashes = NDArray[np.uint64]


@dataclass(frozen=True)
class Drawn:
    """Files of drawn items with their hashes, one for each part that has any.

    `extreme_RD` are for each coordinate the items where it is least and greatest, of all items,
    not of the drawn ones: the ranges of scalar codes are learned from these.
    """

    scratch: Storage
    paths: tuple[str, ...]
    items: int
    drawn: int
    extreme_RD: Floats

    def below(self, wanted: int) -> int:
        """The hash below which about so many items are."""
        return _ALL if wanted >= self.items else int(wanted / self.items * _ALL)

    def first(self, wanted: int) -> Floats:
        """The items of the lowest hashes, by rising hash, float32 [at most `wanted`, D]."""
        kept: tuple[Hashes, Floats] | None = None
        for path in self.paths:
            found = read_drawn(self.scratch, path)
            if kept is not None:
                found = (np.concatenate((kept[0], found[0])), np.concatenate((kept[1], found[1])))
            order = np.argsort(found[0], kind="stable")[:wanted]
            kept = (found[0][order], found[1][order])
        return np.empty((0, self.extreme_RD.shape[1]), np.float32) if kept is None else kept[1]


@dataclass(frozen=True)
class _Task:
    vectors: Vectors
    part: Part
    below: int
    seed: int
    scratch: Storage


@dataclass(frozen=True)
class _Found:
    """Of a part: its file, how many were drawn, its extremes, and what is not finite."""

    path: str
    drawn: int
    extreme_RD: Floats
    bad: int
    first_bad: int


def draw(catalogue: Catalogue, pool: Pool, wanted: int, seed: int, scratch: Storage) -> Drawn:
    """Draw about so many items, and look whether all are finite.

    Raises:
        InputError: a vector has NaN or infinity in it.
    """
    items, dim = catalogue.items, catalogue.dim
    below = _ALL if wanted >= items else int(wanted / items * _ALL)
    tasks = [_Task(catalogue.vectors, part, below, seed, scratch) for part in catalogue.parts]
    paths, drawn, bad, first_bad = list[str](), 0, 0, -1
    extreme_RD = np.empty((0, dim), np.float32)
    for found in pool.map(_draw, tasks):
        paths += [found.path] if found.drawn else []
        drawn += found.drawn
        first_bad = found.first_bad if found.bad and not bad else first_bad
        bad += found.bad
        extreme_RD = _extremes(np.concatenate((extreme_RD, found.extreme_RD)))
    if bad:
        raise InputError(
            f"{bad:,} of {items:,} vectors (items) hold NaN or infinity, the first in row "
            f"{first_bad}",
            todo="No index can rank by them; train anew with a lower learning rate",
        )
    return Drawn(scratch, tuple(paths), items, drawn, extreme_RD)


def read_drawn(scratch: Storage, path: str, below: int = _ALL) -> tuple[Hashes, Floats]:
    """Hashes uint64 [M] and vectors float32 [M, D] of a file whose hash is not above `below`."""
    with scratch.open(path) as raw:
        hash_M = np.lib.format.read_array(raw, allow_pickle=False)
        item_MD = np.lib.format.read_array(raw, allow_pickle=False)
    kept = hash_M <= np.uint64(below)
    return (hash_M, item_MD) if kept.all() else (hash_M[kept], item_MD[kept])


def _draw(task: _Task) -> _Found:
    row_N, item_ND = live_vectors(task.vectors, task.part)
    bad_N = ~np.isfinite(item_ND.sum(axis=1, dtype=np.float64))
    if bad_N.any():
        nothing = np.empty((0, item_ND.shape[1]), np.float32)
        return _Found("", 0, nothing, int(bad_N.sum()), int(row_N[bad_N.argmax()]))
    hash_N = mix(row_N, task.seed)
    kept, path = hash_N <= np.uint64(task.below), f"drawn/part-{task.part.number:05d}.npy"
    if kept.any():
        with task.scratch.writer(path) as out:
            np.lib.format.write_array(out, hash_N[kept], allow_pickle=False)
            np.lib.format.write_array(out, item_ND[kept], allow_pickle=False)
    return _Found(path, int(kept.sum()), _extremes(item_ND), 0, -1)


def _extremes(item_ND: Floats) -> Floats:
    """For each coordinate the first item where it is least and the first where it is greatest."""
    if not len(item_ND):
        return item_ND
    at = np.unique(np.concatenate((item_ND.argmin(axis=0), item_ND.argmax(axis=0))))
    found: Floats = item_ND[at]
    return found
