"""Shards of an index, opened: mapped where they lie on a local disk.

What is mapped holds nothing of its own: pages come and go as searches look at them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from embedmill.pipeline.index.contract import Index
from embedmill.pipeline.index.kinds import kind_of
from embedmill.pipeline.index.memory_map import map_index
from embedmill.pipeline.index.sharded.sharded_index import Sharded
from embedmill.pipeline.store.storage import Storage

__all__ = ["open_shard", "open_shards"]


def open_shards(
    storage: Storage, kind: str, parameters: Mapping[str, int], paths: Sequence[str]
) -> Sharded:
    """The index of files that were checked, or have just been written."""
    return Sharded([open_shard(storage, kind, parameters, path) for path in paths])


def open_shard(storage: Storage, kind: str, parameters: Mapping[str, int], path: str) -> Index:
    """One of them; see `mapped.map_index`."""
    cls = kind_of(kind)
    if storage.is_local:
        return map_index(storage.local_path(path), cls, parameters)
    return cls.load(storage.read(path), parameters)
