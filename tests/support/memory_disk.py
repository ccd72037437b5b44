"""fsspec's files in memory, `memory://`, that tell a world of their changes."""

from __future__ import annotations

import io
from typing import Any, ClassVar

import fsspec
from fsspec.implementations.memory import MemoryFile, MemoryFileSystem

from tests.support.crash_points import World

__all__ = ["MemoryDisk"]


class MemoryDisk(MemoryFileSystem):
    """The same files; one that is written appears when it is closed, or not at all."""

    world: ClassVar[World | None] = None

    @classmethod
    def copy_below(cls, old: str, new: str) -> None:
        """Copy all files of a folder."""
        start = f"/{old}/"
        for name in [name for name in cls.store if name.startswith(start)]:
            copy = f"/{new}/{name.removeprefix(start)}"
            cls.store[copy] = MemoryFile(cls(), copy, cls.store[name].getvalue())

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **options: Any) -> None:
        path = self._strip_protocol(path)
        if mode == "create" and path in self.store:
            raise FileExistsError(path)
        with self._open(path, "wb") as out:
            out.write(value)

    def _open(self, path: str, mode: str = "rb", *rest: Any, **options: Any) -> Any:
        if mode == "wb":
            return _Written(self, path)
        return super()._open(path, mode, *rest, **options)

    def rm_file(self, path: str) -> None:
        path = self._strip_protocol(path)
        if path not in self.store:
            raise FileNotFoundError(path)
        self._tell("remove", path, lambda: self.store.pop(path, None))

    def rm(self, path: str, recursive: bool = False, maxdepth: int | None = None) -> None:
        path = self._strip_protocol(path)
        for name in [n for n in self.store if n == path or n.startswith(f"{path}/")]:
            self.rm_file(name)

    def _tell(self, kind: str, path: str, change: Any) -> None:
        if self.world is None:
            change()
        else:
            self.world.change(kind, path, change)


class _Written(io.BytesIO):
    """A file in the making."""

    def __init__(self, disk: MemoryDisk, path: str) -> None:
        super().__init__()
        self._disk, self._path = disk, path

    def close(self) -> None:
        if not self.closed:
            data = self.getvalue()
            super().close()
            file = MemoryFile(self._disk, self._path, data)
            self._disk._tell("put", self._path, lambda: self._disk.store.update({self._path: file}))


fsspec.register_implementation("memory", MemoryDisk, clobber=True)
