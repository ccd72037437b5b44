"""Roots whose every change a world is told of: on a local disk, in memory, in object stores."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from tests.support.bucket import Bucket
from tests.support.crash_points import World
from tests.support.memory_disk import MemoryDisk
from tests.support.object_store import ObjectStore

__all__ = ["OUTCOMES", "copied", "kind_of", "told_of", "uncopied"]

# Kind of root → what becomes of the change at which the world stops; half of an object is never
# seen.
OUTCOMES = {
    "local": ("lost", "done", "half"),
    "memory": ("lost", "done", "late"),
    "objects": ("lost", "done", "late"),
    "s3": ("lost", "done", "late"),
}

# Kinds of roots in memory, by their protocol: files by name.
_STORES: dict[str, Any] = {"objects": ObjectStore, "s3": Bucket, "memory": MemoryDisk}


def kind_of(root: str) -> str:
    """The kind of a root: "local", or the protocol of its URL."""
    protocol, found, _ = root.partition("://")
    return protocol if found else "local"


def uncopied(kind: str, folder: Path) -> str:
    """A root for a first run: "local", below a folder; or of a store, by its protocol."""
    return str(folder / "start") if kind == "local" else f"{kind}://{uuid.uuid4().hex}"


def copied(root: str) -> str:
    """A copy of a root, of the same kind."""
    kind = kind_of(root)
    if kind == "local":
        copy = str(Path(root).with_name(uuid.uuid4().hex))
        if Path(root).exists():
            shutil.copytree(root, copy, symlinks=True)
        return copy
    copy = f"{kind}://{uuid.uuid4().hex}"
    _STORES[kind].copy_below(root.partition("://")[2], copy.partition("://")[2])
    return copy


def told_of(root: str, world: World) -> AbstractContextManager[None]:
    """Changes of files below a root are told to a world meanwhile."""
    kind = kind_of(root)
    return _local(root, world) if kind == "local" else _stored(_STORES[kind], world)


@contextmanager
def _local(root: str, world: World) -> Iterator[None]:
    # Each is called with the path that changes as the last one.
    names = ("replace", "link", "remove", "rename", "unlink", "rmdir")
    plain: dict[str, Any] = {name: getattr(os, name) for name in names}

    def told(name: str, *paths: Any, **options: Any) -> None:
        change = partial(plain[name], *paths, **options)
        path = _path(paths[-1], options.get("dir_fd"))
        # What is not there is no change, such as a temporary file that was moved.
        is_there = name not in ("remove", "unlink", "rmdir") or os.path.lexists(path)
        if path.startswith(f"{root}/") and is_there:
            half = partial(_cut, paths[0], path) if len(paths) > 1 else None
            world.change(name, path, change, half)
        else:
            change()

    for name in plain:
        setattr(os, name, partial(told, name))
    try:
        yield
    finally:
        for name, function in plain.items():
            setattr(os, name, function)


def _path(path: Any, folder: int | None) -> str:
    """The path of a call that may be relative to an open folder."""
    return str(path) if folder is None else f"{os.readlink(f'/proc/self/fd/{folder}')}/{path}"


def _cut(part: Any, path: str) -> None:
    """Of a file in the making half is on the disk, below its temporary name."""
    data = Path(part).read_bytes()
    Path(f"{path}.{uuid.uuid4().hex}.part").write_bytes(data[: len(data) // 2])


@contextmanager
def _stored(store: Any, world: World) -> Iterator[None]:
    store.world = world
    try:
        yield
    finally:
        store.world = None
