"""Roots whose every change a world is told of: on a local disk, and in an object store."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from tests.support.crash_points import World
from tests.support.object_store import ObjectStore

__all__ = ["copied", "told_of", "uncopied"]

_CHANGES = ("replace", "link", "remove", "rename")
_OBJECTS = "objects://"


def uncopied(kind: str, folder: Path) -> str:
    """A root for a first run: "local", below a folder; or "objects"."""
    return str(folder / "start") if kind == "local" else f"{_OBJECTS}{uuid.uuid4().hex}"


def copied(root: str) -> str:
    """A copy of a root, of the same kind."""
    if not root.startswith(_OBJECTS):
        copy = str(Path(root).with_name(uuid.uuid4().hex))
        shutil.copytree(root, copy)
        return copy
    copy = f"{_OBJECTS}{uuid.uuid4().hex}"
    old, new = (url.removeprefix(_OBJECTS) for url in (root, copy))
    for name in [name for name in ObjectStore.objects if name.startswith(f"{old}/")]:
        ObjectStore.objects[name.replace(old, new, 1)] = ObjectStore.objects[name]
    return copy


def told_of(root: str, world: World) -> AbstractContextManager[None]:
    """Changes of files below a root are told to a world meanwhile."""
    return _objects(world) if root.startswith(_OBJECTS) else _local(root, world)


@contextmanager
def _local(root: str, world: World) -> Iterator[None]:
    plain: dict[str, Any] = {name: getattr(os, name) for name in _CHANGES}

    def told(name: str, *paths: Any, **options: Any) -> None:
        change = partial(plain[name], *paths, **options)
        if str(paths[-1]).startswith(f"{root}/"):
            world.change(name, str(paths[-1]), change)
        else:
            change()

    for name in plain:
        setattr(os, name, partial(told, name))
    try:
        yield
    finally:
        for name, function in plain.items():
            setattr(os, name, function)


@contextmanager
def _objects(world: World) -> Iterator[None]:
    ObjectStore.world = world
    try:
        yield
    finally:
        ObjectStore.world = None
