"""An object store in memory behind fsspec, `objects://`, that can stop at any operation.

It has what object stores have and no more: whole objects, which appear when they are closed, and a
refusal to create one that exists, which can be switched off.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import fsspec
from fsspec.spec import AbstractFileSystem

from tests.support.crash_points import World

__all__ = ["ObjectStore", "lax"]


class ObjectStore(AbstractFileSystem):
    """Objects by name; every change is told to `world`, where there is one."""

    protocol = "objects"
    objects: ClassVar[dict[str, bytes]] = {}
    exclusive: ClassVar[bool] = True
    world: ClassVar[World | None] = None

    @classmethod
    def copy_below(cls, old: str, new: str) -> None:
        """Copy all objects of a folder."""
        for name in [name for name in cls.objects if name.startswith(f"{old}/")]:
            cls.objects[name.replace(old, new, 1)] = cls.objects[name]

    def put(self, name: str, data: bytes, *, exclusive: bool) -> None:
        if exclusive and type(self).exclusive and name in self.objects:
            raise FileExistsError(name)
        self._change("put", name, lambda: self.objects.__setitem__(name, data))

    def rm_file(self, path: str) -> None:
        self._change("remove", path, lambda: self.objects.pop(path, None))

    def rm(self, path: str, recursive: bool = False, maxdepth: int | None = None) -> None:
        for name in [n for n in self.objects if n == path or n.startswith(f"{path}/")]:
            self.rm_file(name)

    def cat_file(
        self, path: str, start: int | None = None, end: int | None = None, **_: Any
    ) -> bytes:
        if path not in self.objects:
            raise FileNotFoundError(path)
        return self.objects[path][start:end]

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        path = self._strip_protocol(path)
        if path in self.objects:
            return {"name": path, "size": len(self.objects[path]), "type": "file"}
        if any(name.startswith(f"{path}/") for name in self.objects):
            return {"name": path, "size": 0, "type": "directory"}
        raise FileNotFoundError(path)

    def ls(self, path: str, detail: bool = True, **_: Any) -> list[Any]:
        below = {n.removeprefix(f"{path}/").split("/")[0] for n in self.objects
                 if n.startswith(f"{path}/")}  # fmt: skip
        names = [f"{path}/{name}" for name in sorted(below)]
        return [self.info(name) for name in names] if detail else names

    def _open(self, path: str, mode: str = "rb", **_: Any) -> Any:
        if mode == "rb":
            return io.BytesIO(self.cat_file(path))
        return _Upload(self, path, exclusive=mode == "xb")

    def _change(self, kind: str, name: str, change: Any) -> None:
        if self.world is None:
            change()
        else:
            self.world.change(kind, name, change)


class _Upload(io.BytesIO):
    """An object in the making."""

    def __init__(self, store: ObjectStore, name: str, *, exclusive: bool) -> None:
        super().__init__()
        self._store, self._name, self._exclusive = store, name, exclusive

    def close(self) -> None:
        if not self.closed:
            data = self.getvalue()
            super().close()
            self._store.put(self._name, data, exclusive=self._exclusive)


@contextmanager
def lax() -> Iterator[None]:
    """A store that writes over an object that was to be created."""
    ObjectStore.exclusive = False
    try:
        yield
    finally:
        ObjectStore.exclusive = True


fsspec.register_implementation("objects", ObjectStore, clobber=True)
