"""Building an index in shards: lists learned once, each shard filled and written by a task.

    learn    centroids by `lloyd`, codes and rotation from a bounded sample, in an empty engine
    fill     a task a shard: its parts, one at a time, into a copy of that engine; graphs whole
    verify   a task a shard: the file is read back, every place must be there once

Legend: B queries, N items of a part or shard, E padded coordinates, D coordinates, L lists.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import faiss
import numpy as np

from embedmill.pipeline.errors import ContractError
from embedmill.pipeline.index.contract import Floats, threads
from embedmill.pipeline.index.kinds import kind_of
from embedmill.pipeline.index.kinds.inverted import Inverted
from embedmill.pipeline.index.kinds.padding import padded
from embedmill.pipeline.index.sharded.catalogue import Part, live_vectors
from embedmill.pipeline.index.sharded.kmeans import Turn, learn_lists
from embedmill.pipeline.index.sharded.loading import open_shard
from embedmill.pipeline.index.sharded.sample import Drawn
from embedmill.pipeline.index.sharded.task_pool import Pool
from embedmill.pipeline.store.artifact import entry_of
from embedmill.pipeline.store.storage import Storage
from embedmill.pipeline.views.vectors import Vectors
from embedmill.schemas.manifest import FileEntry

__all__ = ["LEARNED_FROM", "Shards", "check_places", "fill_shards", "learned"]

# Items that codes are learned from, beside the extreme ones: as many as any kind looks at.
LEARNED_FROM = 1 << 16


@dataclass(frozen=True)
class Shards:
    """What every task of a build knows.

    `engine` names the file of the empty engine in `scratch`, "" for kinds that learn nothing
    together; files of shards go to `storage` under `name` and their number.
    """

    vectors: Vectors
    kind: str
    parameters: Mapping[str, int]
    seed: int
    scratch: Storage
    storage: Storage
    name: str
    engine: str = ""

    def path(self, number: int) -> str:
        """Of a shard's file."""
        return f"{self.name}-{number:05d}.faiss"


@dataclass(frozen=True)
class _Shard:
    """A task: a shard and its parts."""

    shards: Shards
    number: int
    parts: tuple[Part, ...]

    @property
    def items(self) -> int:
        """Places that it has to hold."""
        return sum(part.items for part in self.parts)

    def blocks(self) -> Iterator[Floats]:
        """Its live vectors, part by part."""
        for part in self.parts:
            yield live_vectors(self.shards.vectors, part)[1]


def learned(
    kind: type[Inverted], parameters: Mapping[str, int], seed: int, drawn: Drawn, pool: Pool
) -> Any:
    """An empty engine with its lists and codes: centroids by the pool, the rest here."""
    segments = parameters.get("segments", 1)
    with threads(1):
        some_NE = padded(drawn.first(LEARNED_FROM), segments)
        turn = kind.turning(some_NE, parameters, seed)
    centroid_LE = learn_lists(pool, drawn, parameters["lists"], Turn.of(segments, turn))
    with threads(1):
        every_NE = np.concatenate((some_NE, padded(drawn.extreme_RD, segments)))
        engine = kind.over(every_NE, turn, centroid_LE, parameters, seed)
    engine.reset()
    return engine


def fill_shards(shards: Shards, groups: Sequence[tuple[Part, ...]], pool: Pool) -> list[FileEntry]:
    """Write every shard and read it back; entries of the files in order.

    Raises:
        ContractError: a place is lost or there twice.
    """
    tasks = [_Shard(shards, number, parts) for number, parts in enumerate(groups)]
    entries = list(pool.map(_fill, tasks))
    held = sum(pool.map(_verify, tasks))
    wanted = sum(task.items for task in tasks)
    if held != wanted:
        raise _lost(shards.storage.root, held, wanted)
    return entries


def _fill(task: _Shard) -> FileEntry:
    """Build a shard and write it."""
    shards, kind = task.shards, kind_of(task.shards.kind)
    with threads(1):
        if shards.engine:
            data = np.frombuffer(shards.scratch.read(shards.engine), np.uint8)
            engine = faiss.deserialize_index(data)
            _add(engine, task.blocks(), shards.parameters.get("segments", 1))
        else:
            whole_ND = np.empty((task.items, shards.vectors.dim), np.float32)
            first = 0
            for block_ND in task.blocks():
                whole_ND[first : first + len(block_ND)] = block_ND
                first += len(block_ND)
            engine = kind.build(whole_ND, shards.parameters, shards.seed).engine
        path = shards.path(task.number)
        with shards.storage.writer(path) as out:
            writer = faiss.PyCallbackIOWriter(out.write)  # type: ignore[attr-defined]
            faiss.write_index(engine, writer)
    return entry_of(path, out)


def _add(engine: Any, blocks: Iterator[Floats], segments: int) -> None:
    """Fill lists by distance; they are probed by inner product (see `inverted.Inverted`)."""
    ivf = faiss.extract_index_ivf(engine)
    by_product, owned = faiss.downcast_index(ivf.quantizer), ivf.own_fields
    by_distance = faiss.IndexFlatL2(ivf.d)
    by_distance.add(by_product.reconstruct_n(0, by_product.ntotal))
    ivf.own_fields, ivf.quantizer = False, by_distance
    for block_ND in blocks:
        engine.add(np.ascontiguousarray(padded(block_ND, segments)))
    ivf.quantizer, ivf.own_fields = by_product, owned


def _verify(task: _Shard) -> int:
    """Read a shard back; how many places it holds."""
    shards = task.shards
    path = shards.path(task.number)
    engine = open_shard(shards.storage, shards.kind, shards.parameters, path).engine
    return check_places(engine, task.items, shards.storage.url(path))


def check_places(engine: Any, items: int, where: str) -> int:
    """How many places an engine holds: 0 .. items - 1, each once.

    Raises:
        ContractError: one is missing, or there twice.
    """
    if int(engine.ntotal) != items:
        raise _lost(where, int(engine.ntotal), items)
    if isinstance(engine, faiss.IndexIDMap):
        row_N = np.sort(faiss.vector_to_array(engine.id_map))
        if not np.array_equal(row_N, np.arange(items)):
            raise _lost(where, items, items)
        engine = faiss.downcast_index(engine.index)
        check_places(engine, items, where)
    if isinstance(engine, faiss.IndexRefine):
        check_places(faiss.downcast_index(engine.refine_index), items, where)
        engine = faiss.downcast_index(engine.base_index)
    if isinstance(engine, faiss.IndexPreTransform):
        engine = faiss.downcast_index(engine.index)
    if not isinstance(engine, faiss.IndexIVF):
        return items  # places are those of the vectors
    times_N, lists = np.zeros(items, np.int64), cast(Any, engine).invlists
    for number in range(lists.nlist):
        size = lists.list_size(number)
        if not size:
            continue
        ids = faiss.rev_swig_ptr(lists.get_ids(number), size)
        if ids.min() < 0 or ids.max() >= items:
            raise _lost(where, items, items)
        np.add.at(times_N, ids, 1)
    twice, lost = int((times_N > 1).sum()), int((times_N == 0).sum())
    if twice or lost:
        raise ContractError(
            f"of {items:,} places {lost:,} are lost and {twice:,} there more than once",
            where=where,
            todo="This is a bug; nothing was committed",
        )
    return items


def _lost(where: str, held: int, wanted: int) -> ContractError:
    return ContractError(
        f"holds {held:,} places that are not those of {wanted:,} items",
        where=where,
        todo="This is a bug; nothing was committed",
    )


def kind_with_lists(name: str) -> type[Inverted] | None:
    """The class of a kind that learns lists, None for others."""
    kind = kind_of(name)
    return kind if issubclass(kind, Inverted) else None
