"""Building shards by tasks: lists trained once, then each shard filled and written.

    train    centroids by distributed k-means, codes and rotation from a bounded sample, into an
             empty FAISS index
    fill     a task per shard: its item files, one at a time, into a copy of that index; graphs
             are built from all vectors of the shard
    verify   a task per shard: the file is read back, and must hold each position once

Legend: N items of a file or shard, D coordinates, E coordinates after padding, L lists.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import faiss
import numpy as np

from embedmill.pipeline.errors import ContractError
from embedmill.pipeline.index.faiss_threads import faiss_threads
from embedmill.pipeline.index.kinds import kind_of
from embedmill.pipeline.index.kinds.inverted import Inverted
from embedmill.pipeline.index.kinds.padding import padded
from embedmill.pipeline.index.searchable import Floats
from embedmill.pipeline.index.selection.plans import Plan
from embedmill.pipeline.index.sharded.kmeans import VectorTransform, train_centroids_by_tasks
from embedmill.pipeline.index.sharded.sharded_index import open_shard
from embedmill.pipeline.index.sharded.stored_sample import StoredSample
from embedmill.pipeline.store.artifact_writer import entry_of
from embedmill.pipeline.store.storage import Storage
from embedmill.pipeline.task_pool import TaskPool
from embedmill.pipeline.views.vectors import LiveFile, LiveVectors, Vectors
from embedmill.schemas.index import shard_file
from embedmill.schemas.manifest import FileEntry

__all__ = [
    "TRAINING_ITEMS",
    "ShardSettings",
    "build_shards",
    "check_positions",
    "inverted_kind",
    "train_empty_index",
]

# Items that codes are trained with, beside the extreme ones: as many as any kind uses.
TRAINING_ITEMS = 1 << 16


@dataclass(frozen=True)
class ShardSettings:
    """What all shards of a build have in common.

    `empty_index` names the file of the trained, empty FAISS index in `scratch`, "" for kinds that
    train nothing; files of shards go to `storage`.
    """

    vectors: Vectors
    plan: Plan
    seed: int
    scratch: Storage
    storage: Storage
    empty_index: str = ""

    @property
    def parameters(self) -> Mapping[str, int]:
        """Those of the plan."""
        return self.plan.parameters


@dataclass(frozen=True)
class _ShardTask:
    """Build one shard from its item files."""

    settings: ShardSettings
    number: int
    files: tuple[LiveFile, ...]

    @property
    def path(self) -> str:
        """Path of its file."""
        return shard_file(self.settings.plan.kind, self.settings.plan.number, self.number)

    @property
    def items(self) -> int:
        """Items of the shard."""
        return sum(file.items for file in self.files)

    def blocks(self) -> Iterator[Floats]:
        """Its live vectors, file by file."""
        live_items = LiveVectors(self.settings.vectors, self.files)
        for file in self.files:
            yield live_items.read(file)[1]


def train_empty_index(
    kind: Inverted,
    parameters: Mapping[str, int],
    seed: int,
    sample: StoredSample,
    pool: TaskPool,
) -> Any:
    """An empty FAISS index with trained lists and codes.

    Args:
        kind: a kind with inverted lists.
        parameters: of its plan.
        seed: of codebooks and samples.
        sample: items to train with.
        pool: trains the centroids; the rest is trained in this process.
    """
    segments = parameters.get("segments", 1)
    with faiss_threads(1):
        training_NE = padded(sample.lowest(TRAINING_ITEMS), segments)
        rotation = kind.train_rotation(training_NE, parameters, seed)
    transform = VectorTransform.of(segments, rotation)
    centroid_LE = train_centroids_by_tasks(pool, sample, parameters["lists"], transform)
    with faiss_threads(1):
        training_NE = np.concatenate((training_NE, padded(sample.extreme_RD, segments)))
        index = kind.fill(training_NE, rotation, centroid_LE, parameters, seed)
    index.reset()
    return index


def build_shards(
    settings: ShardSettings, groups: Sequence[tuple[LiveFile, ...]], pool: TaskPool
) -> list[FileEntry]:
    """Write every shard and read it back.

    Args:
        settings: what the shards have in common.
        groups: the item files of each shard.
        pool: runs two tasks for each shard.

    Returns:
        entries of the files, in order.

    Raises:
        ContractError: a position is missing, or there twice.
    """
    tasks = [_ShardTask(settings, number, files) for number, files in enumerate(groups)]
    entries = list(pool.map(_fill, tasks))
    indexed = sum(pool.map(_verify, tasks))
    wanted = sum(task.items for task in tasks)
    if indexed != wanted:
        raise _wrong_positions(settings.storage.root, indexed, wanted)
    return entries


def _fill(task: _ShardTask) -> FileEntry:
    """Build a shard and write it."""
    settings, kind = task.settings, kind_of(task.settings.plan.kind)
    with faiss_threads(1):
        if settings.empty_index:
            data = np.frombuffer(settings.scratch.read(settings.empty_index), np.uint8)
            index = faiss.deserialize_index(data)
            _fill_lists(index, task.blocks(), settings.parameters.get("segments", 1))
        else:
            item_ND = np.empty((task.items, settings.vectors.dim), np.float32)
            first = 0
            for block_ND in task.blocks():
                item_ND[first : first + len(block_ND)] = block_ND
                first += len(block_ND)
            index = kind.build_faiss(item_ND, settings.parameters, settings.seed)
        with settings.storage.writer(task.path) as out:
            writer = faiss.PyCallbackIOWriter(out.write)  # type: ignore[attr-defined]
            faiss.write_index(index, writer)
    return entry_of(task.path, out)


def _fill_lists(index: Any, blocks: Iterator[Floats], segments: int) -> None:
    """Fill lists by distance; they are probed by inner product (see `InvertedIndex`)."""
    ivf = faiss.extract_index_ivf(index)
    by_product, owned = faiss.downcast_index(ivf.quantizer), ivf.own_fields
    by_distance = faiss.IndexFlatL2(ivf.d)
    by_distance.add(by_product.reconstruct_n(0, by_product.ntotal))
    ivf.own_fields, ivf.quantizer = False, by_distance
    for block_ND in blocks:
        index.add(np.ascontiguousarray(padded(block_ND, segments)))
    ivf.quantizer, ivf.own_fields = by_product, owned


def _verify(task: _ShardTask) -> int:
    """Read a shard back and check it; how many items it holds."""
    settings = task.settings
    shard = open_shard(settings.storage, settings.plan.kind, settings.parameters, task.path)
    return check_positions(shard.faiss_index, task.items, settings.storage.url(task.path))


def check_positions(index: Any, items: int, where: str) -> int:
    """Check that a FAISS index holds the positions 0 .. items - 1, each once.

    Returns:
        `items`.

    Raises:
        ContractError: a position is missing, or there twice.
    """
    if int(index.ntotal) != items:
        raise _wrong_positions(where, int(index.ntotal), items)
    if isinstance(index, faiss.IndexIDMap):
        position_N = np.sort(faiss.vector_to_array(index.id_map))
        if not np.array_equal(position_N, np.arange(items)):
            raise _wrong_positions(where, items, items)
        index = faiss.downcast_index(index.index)
        check_positions(index, items, where)
    if isinstance(index, faiss.IndexRefine):
        check_positions(faiss.downcast_index(index.refine_index), items, where)
        index = faiss.downcast_index(index.base_index)
    if isinstance(index, faiss.IndexPreTransform):
        index = faiss.downcast_index(index.index)
    if isinstance(index, faiss.IndexIVF):
        _check_lists(cast(Any, index).invlists, items, where)
    return items  # elsewhere, positions are those of the stored vectors


def _check_lists(lists: Any, items: int, where: str) -> None:
    """Check that inverted lists hold each position once."""
    count_N = np.zeros(items, np.int64)
    for number in range(lists.nlist):
        size = lists.list_size(number)
        if not size:
            continue
        positions = faiss.rev_swig_ptr(lists.get_ids(number), size)
        if positions.min() < 0 or positions.max() >= items:
            raise _wrong_positions(where, items, items)
        np.add.at(count_N, positions, 1)
    twice, missing = int((count_N > 1).sum()), int((count_N == 0).sum())
    if twice or missing:
        raise ContractError(
            f"of {items:,} positions {missing:,} are missing and {twice:,} there more than once",
            where=where,
            todo="This is a bug; nothing was committed",
        )


def _wrong_positions(where: str, found: int, wanted: int) -> ContractError:
    return ContractError(
        f"holds {found:,} positions that are not those of {wanted:,} items",
        where=where,
        todo="This is a bug; nothing was committed",
    )


def inverted_kind(name: str) -> Inverted | None:
    """The kind of this name where it has inverted lists, None for others."""
    kind = kind_of(name)
    return kind if isinstance(kind, Inverted) else None
